//! Replies on their way into the ledger. A reply is appended here with one `write` as soon as its last byte has come, and is
//! committed a few milliseconds later together with others. What a process that dies in between leaves behind is read at the
//! next opening, so a reply that reached us is not bought again.
//!
//! Two files take turns: one is written to while the replies of the other are committed; then that one is emptied. A frame is
//!
//! ```text
//! "RLRP"  length of the rest: u32  CRC-32 of the rest: u32  request: i64  attempt: u32  status: u16  body
//! ```
//!
//! with numbers in little-endian order. After the last whole frame, a torn one is what was being written when the process or
//! the machine died; its call then counts as possibly billed.

use crate::{Result, StoreError};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAGIC: &[u8; 4] = b"RLRP";

/// Magic, length, checksum.
const HEAD: usize = 12;

/// Request, attempt, status.
const FIELDS: usize = 14;

/// A file this long gives its turn to the other one. A few thousand verdicts.
const TURN: u64 = 4 << 20;

/// A reply as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub request: i64,
    pub attempt: u32,
    pub status: u16,
    pub body: Vec<u8>,
}

/// Proof that a reply is in the spool; [`super::Store::commit_calls`] takes it back when the reply is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spooled(usize);

/// The two files.
#[derive(Debug)]
pub(super) struct Spool {
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    sides: [Side; 2],
    active: usize,
}

#[derive(Debug)]
struct Side {
    path: PathBuf,
    /// Opened when first written to.
    file: Option<File>,
    length: u64,
    /// Frames whose replies are not committed yet.
    open: usize,
}

impl Spool {
    /// The spool beside a ledger. Nothing is opened or written yet.
    pub(super) fn beside(ledger: &Path) -> Self {
        let side = |path| Side { path, file: None, length: 0, open: 0 };
        Self { turns: Mutex::new(Turns { sides: paths(ledger).map(side), active: 0 }) }
    }

    /// Appends a reply with one write. It then survives this process, though not yet a power cut.
    pub(super) fn append(&self, frame: &Frame) -> Result<Spooled> {
        let bytes = encode(frame);
        let mut turns = self.turns();
        if turns.sides[turns.active].length > TURN && turns.sides[1 - turns.active].open == 0 {
            turns.active = 1 - turns.active;
            let next = turns.active;
            turns.sides[next].empty()?;
        }
        let active = turns.active;
        let side = &mut turns.sides[active];
        side.append(&bytes).map_err(|source| spool_error(&side.path, source))?;
        side.open += 1;
        Ok(Spooled(active))
    }

    /// Notes that the replies are committed. A file without any other is emptied when its turn comes.
    pub(super) fn committed(&self, frames: impl IntoIterator<Item = Spooled>) {
        let mut turns = self.turns();
        for Spooled(side) in frames {
            turns.sides[side].open = turns.sides[side].open.saturating_sub(1);
        }
    }

    /// Empties both files, whose replies are all committed.
    pub(super) fn clear(&self) -> Result<()> {
        let mut turns = self.turns();
        turns.sides.iter_mut().try_for_each(Side::empty)
    }

    /// Removes the files when the ledger is closed, unless a reply in them is not committed.
    pub(super) fn remove(&self) {
        let mut turns = self.turns();
        for side in turns.sides.iter_mut().filter(|side| side.open == 0) {
            side.file = None;
            // A file that stays is read again and changes nothing.
            let _ = std::fs::remove_file(&side.path);
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        // Nothing that holds the lock can panic half way through a change.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Side {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.length = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        let written = file.write_all(bytes);
        if written.is_err() {
            // Half a frame would hide every later one.
            file.set_len(self.length)?;
            return written;
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn empty(&mut self) -> Result<()> {
        let emptied = match &self.file {
            Some(file) => file.set_len(0),
            None => match OpenOptions::new().write(true).open(&self.path) {
                Ok(file) => file.set_len(0),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            },
        };
        emptied.map_err(|source| spool_error(&self.path, source))?;
        (self.length, self.open) = (0, 0);
        Ok(())
    }
}

/// The whole frames that an earlier process left, oldest file first, and how many bytes of torn ones stand behind them.
pub(super) fn left_behind(ledger: &Path) -> Result<(Vec<Frame>, usize)> {
    let (mut frames, mut torn) = (Vec::new(), 0);
    for path in paths(ledger) {
        match std::fs::read(&path) {
            Ok(bytes) => torn += decode(&bytes, &mut frames),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(spool_error(&path, source)),
        }
    }
    Ok((frames, torn))
}

fn paths(ledger: &Path) -> [PathBuf; 2] {
    ["-replies-0", "-replies-1"].map(|ending| {
        let mut name = ledger.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}

fn encode(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + FIELDS + frame.body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&u32::try_from(FIELDS + frame.body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&frame.request.to_le_bytes());
    bytes.extend_from_slice(&frame.attempt.to_le_bytes());
    bytes.extend_from_slice(&frame.status.to_le_bytes());
    bytes.extend_from_slice(&frame.body);
    let checksum = crc32fast::hash(&bytes[HEAD..]);
    bytes[8..HEAD].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Adds the whole frames at the beginning of `bytes`, and returns how many bytes are left.
fn decode(mut bytes: &[u8], frames: &mut Vec<Frame>) -> usize {
    while let Some((frame, rest)) = first_frame(bytes) {
        frames.push(frame);
        bytes = rest;
    }
    bytes.len()
}

fn first_frame(bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let (payload, after) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if magic != MAGIC || crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (request, payload) = payload.split_first_chunk::<8>()?;
    let (attempt, payload) = payload.split_first_chunk::<4>()?;
    let (status, body) = payload.split_first_chunk::<2>()?;
    let frame = Frame {
        request: i64::from_le_bytes(*request),
        attempt: u32::from_le_bytes(*attempt),
        status: u16::from_le_bytes(*status),
        body: body.to_vec(),
    };
    Some((frame, after))
}

fn spool_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::from_io(path, "keeping a reply in", source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(request: i64, body: &[u8]) -> Frame {
        Frame { request, attempt: 3, status: 200, body: body.to_vec() }
    }

    #[test]
    fn a_torn_end_hides_nothing_before_it() {
        let frames = [frame(1, b"one"), frame(-7, b""), frame(i64::MAX, &[0xff; 300])];
        let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
        let last = encode(&frames[2]).len();
        for cut in 0..bytes.len() {
            let mut found = Vec::new();
            let torn = decode(&bytes[..cut], &mut found);
            assert_eq!(found, frames[..found.len()], "cut at {cut}");
            assert_eq!(found.len() == 2, cut >= bytes.len() - last, "cut at {cut}");
            assert_eq!(torn == 0, found.iter().flat_map(encode).count() == cut);
        }
    }

    #[test]
    fn files_take_turns_and_are_emptied_once_committed() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("rlaif.db");
        let spool = Spool::beside(&ledger);
        let big = frame(1, &vec![b'x'; 1 << 20]);
        let mut first: Vec<Spooled> = (0..4).map(|_| spool.append(&big).unwrap()).collect();
        assert!(first.iter().all(|ticket| *ticket == Spooled(0)));
        let late = first.pop().unwrap();
        spool.committed(first);
        let second: Vec<Spooled> = (0..6).map(|_| spool.append(&big).unwrap()).collect();
        assert!(second.iter().all(|ticket| *ticket == Spooled(1)), "the first is full");
        assert_eq!(left_behind(&ledger).unwrap().0.len(), 10, "one of the first is not committed");
        spool.committed(second);
        spool.committed([late]);
        assert_eq!(spool.append(&frame(2, b"two")).unwrap(), Spooled(0));
        assert_eq!(left_behind(&ledger).unwrap().0.len(), 7, "the first was emptied");
        spool.clear().unwrap();
        assert_eq!(left_behind(&ledger).unwrap(), (vec![], 0));
    }

    proptest! {
        #[test]
        fn damage_is_never_read_as_a_reply(body in proptest::collection::vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = encode(&frame(9, &body));
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let mut found = Vec::new();
            let torn = decode(&bytes, &mut found);
            prop_assert!(found.is_empty() && torn == bytes.len());
        }
    }
}
