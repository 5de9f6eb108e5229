//! Reading and writing frames: u32 header length, u32 payload length, header, payload.

use crate::wire::{MAX_HEADER, MAX_PAYLOAD, frame_head};
use bytes::{Bytes, BytesMut};
use holdfast_proto::stream::Frame;
use prost::Message as _;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(super) fn invalid(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// Gathers frames to be written with one call and one flush.
#[derive(Default)]
pub(super) struct Batch {
    small: BytesMut,
}

/// Pieces from this size on are written from where they are; smaller ones are gathered.
const GATHER_BELOW: usize = 16 << 10;
/// What is urgent passes what isn't gathered yet.
const GATHER_MAX: usize = 256 << 10;

impl Batch {
    pub(super) async fn put(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        frame: &Frame,
        payload: &[Bytes],
    ) -> io::Result<()> {
        let len = payload.iter().map(Bytes::len).sum();
        self.small.extend_from_slice(&frame_head(frame, len));
        for piece in payload {
            if piece.len() < GATHER_BELOW {
                self.small.extend_from_slice(piece);
            } else {
                self.write(stream).await?;
                stream.write_all(piece).await?;
            }
        }
        if self.small.len() >= GATHER_MAX {
            self.write(stream).await?;
        }
        Ok(())
    }

    async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if !self.small.is_empty() {
            stream.write_all(&self.small).await?;
            self.small.clear();
        }
        Ok(())
    }

    pub(super) async fn flush(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.write(stream).await?;
        stream.flush().await
    }
}

/// Memory for a frame is taken in such steps, doubled, as its bytes come: a length alone gets nobody more. A frame of the usual
/// entries fits into the first.
const STEP: usize = (1 << 20) + (128 << 10);

/// The next frame; an end of the stream between frames is `UnexpectedEof` like any other.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Frame, Bytes)> {
    read_within(stream, MAX_HEADER, MAX_PAYLOAD).await
}

/// As `read`, for frames that are known to be small.
pub(super) async fn read_within(
    stream: &mut (impl AsyncRead + Unpin),
    header_max: usize,
    payload_max: usize,
) -> io::Result<(Frame, Bytes)> {
    let (header, payload) = (
        stream.read_u32_le().await? as usize,
        stream.read_u32_le().await? as usize,
    );
    if header > header_max || payload > payload_max {
        return Err(invalid(format!(
            "a frame of {header} + {payload} bytes: the other side doesn't speak Holdfast's stream"
        )));
    }
    let mut bytes = BytesMut::new();
    while bytes.len() < header + payload {
        let have = bytes.len();
        bytes.resize((header + payload).min((2 * have).max(STEP)), 0);
        stream.read_exact(&mut bytes[have..]).await?;
    }
    let mut bytes = bytes.freeze();
    let frame = Frame::decode(bytes.split_to(header)).map_err(invalid)?;
    Ok((frame, bytes))
}
