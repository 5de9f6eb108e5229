//! Memory for direct I/O: begins at and fills whole blocks, grows, and is reused.

use crate::types::BLOCK;

const PAGE: usize = BLOCK as usize;

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; PAGE]);

/// Bytes whose address is aligned to `BLOCK`. What was in it stays when it grows or is used again.
#[derive(Default)]
pub struct AlignedBuf {
    pages: Vec<Page>,
}

impl AlignedBuf {
    /// Zeros, at least `len` bytes.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.grow(len);
        buffer
    }

    /// At least `len` bytes long from now on; new bytes are zeros.
    pub fn grow(&mut self, len: usize) {
        let pages = len.div_ceil(PAGE);
        if pages > self.pages.len() {
            self.pages.resize(pages, Page([0; PAGE]));
        }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: a Page is exactly PAGE initialised bytes without padding, and the pages of a Vec are contiguous.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.pages.len() * PAGE) }
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), self.pages.len() * PAGE) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_aligned_and_keeps_its_bytes_when_it_grows() {
        let mut buffer = AlignedBuf::zeroed(1);
        buffer[7] = 42;
        buffer.grow(3 * PAGE + 1);
        assert_eq!((buffer.len(), buffer[7], buffer[3 * PAGE]), (4 * PAGE, 42, 0));
        assert_eq!(buffer.as_ptr() as usize % PAGE, 0);
    }
}
