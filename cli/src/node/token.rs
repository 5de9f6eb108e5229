//! The one line that makes a new machine a node: its identity, and where the others are.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_proto::control::JoinToken;
use prost::Message as _;

const HEAD: &str = "holdfast-join-1.";
/// Bytes of the checksum in front: a token is pasted by hand.
const SUM: usize = 8;
const AGAIN: &str = "copy it as a whole, on one line, or make a new one with `holdfast node replace`";

pub(crate) fn encode(token: &JoinToken) -> String {
    let bytes = token.encode_to_vec();
    let mut all = blake3::hash(&bytes).as_bytes()[..SUM].to_vec();
    all.extend(bytes);
    format!("{HEAD}{}", URL_SAFE_NO_PAD.encode(all))
}

/// Line breaks that a terminal or a mail put in are left out.
pub(crate) fn decode(text: &str) -> anyhow::Result<JoinToken> {
    let text: String = text.split_whitespace().collect();
    let Some(body) = text.strip_prefix(HEAD) else {
        bail!("this is no join token: one begins with {HEAD}; {AGAIN}");
    };
    let bytes = URL_SAFE_NO_PAD
        .decode(body)
        .with_context(|| format!("the join token is damaged; {AGAIN}"))?;
    let Some((sum, bytes)) = bytes.split_at_checked(SUM) else {
        bail!("the join token is cut short; {AGAIN}");
    };
    if blake3::hash(bytes).as_bytes()[..SUM] != *sum {
        bail!("the join token is incomplete or was changed; {AGAIN}");
    }
    JoinToken::decode(bytes).with_context(|| format!("the join token is of another version; {AGAIN}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_pasted_as_a_whole_is_read(node in "[a-z0-9]{1,9}", key in proptest::collection::vec(any::<u8>(), 0..300)) {
            let token = JoinToken { node, key, ..JoinToken::default() };
            let text = encode(&token);
            prop_assert_eq!(&decode(&text).unwrap(), &token);
            let broken: Vec<&str> = text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
            prop_assert_eq!(&decode(&format!(" {}\n", broken.join("\n"))).unwrap(), &token);
        }

        #[test]
        fn what_wasnt_is_refused(key in proptest::collection::vec(any::<u8>(), 1..300), at: prop::sample::Index) {
            let text = encode(&JoinToken { key, ..JoinToken::default() });
            let at = at.index(text.len());
            prop_assert!(decode(&text[..at]).is_err());
            let mut changed = text.into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            prop_assert!(decode(std::str::from_utf8(&changed).unwrap()).is_err());
        }
    }
}
