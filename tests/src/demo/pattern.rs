//! What the demo writes: every byte follows from the file's name and the byte's place, so that whatever is found later
//! can be judged without having kept a copy.

/// Header of a 16-bit mono WAV of 8 kHz whose sizes aren't known yet, as a recorder leaves it in mid-call.
const WAV_HEADER: [u8; 44] =
    *b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\xff\xff\xff\xff";

#[derive(Debug, Clone)]
pub struct Pattern {
    seed: u64,
    header: &'static [u8],
}

impl Pattern {
    /// Of the file with this name: a `.wav` begins with a header.
    pub fn of(name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let seed = hash
            .as_bytes()
            .iter()
            .take(8)
            .fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self {
            seed,
            header: if name.ends_with(".wav") { &WAV_HEADER } else { &[] },
        }
    }

    /// The bytes that belong at `offset`.
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        (offset..).take(len).map(|at| self.byte(at)).collect()
    }

    /// Where `found` differs from what belongs at `offset`.
    pub fn first_difference(&self, offset: u64, found: &[u8]) -> Option<u64> {
        (offset..)
            .zip(found)
            .find(|(at, byte)| self.byte(*at) != **byte)
            .map(|(at, _)| at)
    }

    fn byte(&self, at: u64) -> u8 {
        let in_header = usize::try_from(at).ok().and_then(|at| self.header.get(at));
        in_header
            .copied()
            .unwrap_or_else(|| mix(self.seed ^ (at / 8)).to_le_bytes()[(at % 8) as usize])
    }
}

/// splitmix64: a different word at each place, none of them zero for long.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn pieces_fit_together_and_damage_is_found() {
        let pattern = Pattern::of("call-01.wav");
        let whole = pattern.bytes(0, 5000);
        assert!(whole.starts_with(b"RIFF"));
        assert_eq!(whole[1234..3456], pattern.bytes(1234, 2222));
        assert_eq!(pattern.first_difference(0, &whole), None);
        let mut damaged = whole.clone();
        damaged[4321] ^= 1;
        assert_eq!(pattern.first_difference(0, &damaged), Some(4321));
        assert_ne!(whole[100..], Pattern::of("call-02.wav").bytes(100, 4900));
    }
}
