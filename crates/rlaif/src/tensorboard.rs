//! Metrics as TensorBoard reads them: event files in `tensorboard/STAGE/` of a run.
//!
//! A file is a row of records (TFRecord): length as `u64`, masked CRC-32C of those eight bytes, data, masked CRC-32C of the data. The
//! data is an `Event` in protobuf's wire format (<https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto>):
//!
//! ```text
//! Event    1: wall_time double   2: step int64   3: file_version string   5: summary Summary   7: session_log SessionLog
//! Summary  1: value Value, repeated       Value  1: tag string   2: simple_value float       SessionLog  1: status enum, START = 1
//! ```
//!
//! Each process writes a file of its own, later ones with later names. It begins with a session's start at the step after the
//! checkpoint, whereupon TensorBoard forgets what earlier files say of that step and later ones: each step shows once.

use rlaif_core::metrics::MetricRow;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Begins a file in `folder`; `resumed` is the step that training goes on after, 0 for a fresh start.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(folder: &Path, resumed: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Readers sort by name and look for `tfevents` in it.
        let name = format!(
            "events.out.tfevents.{:010}.{:06}.{}.rlaif",
            now.as_secs(),
            now.subsec_micros(),
            std::process::id()
        );
        let file = OpenOptions::new().create_new(true).append(true).open(folder.join(name))?;
        let mut events = Self { file };
        events.write(&version(now.as_secs_f64()))?;
        events.write(&session_start(now.as_secs_f64(), resumed + 1))?;
        Ok(events)
    }

    /// Adds the finite values of a row.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn add(&mut self, row: &MetricRow) -> std::io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.write(&scalars(now.as_secs_f64(), row))
    }

    /// One record with one call to the system, so that a process that dies leaves whole records.
    fn write(&mut self, event: &[u8]) -> std::io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc32c(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked_crc32c(event).to_le_bytes());
        self.file.write_all(&record)
    }
}

/// The first event of a file, which says what kind of file it is.
fn version(wall_time: f64) -> Vec<u8> {
    let mut event = double(1, wall_time);
    event.extend(bytes(3, b"brain.Event:2"));
    event
}

fn session_start(wall_time: f64, step: u64) -> Vec<u8> {
    const START: u64 = 1;
    let mut event = double(1, wall_time);
    event.extend(integer(2, step));
    event.extend(bytes(7, &integer(1, START)));
    event
}

fn scalars(wall_time: f64, row: &MetricRow) -> Vec<u8> {
    let mut event = double(1, wall_time);
    event.extend(integer(2, row.step));
    let finite = row.values.iter().filter(|(_, value)| value.is_finite());
    let values = finite.flat_map(|(name, value)| {
        let mut scalar = bytes(1, tag(name).as_bytes());
        scalar.extend(float(2, *value as f32));
        bytes(1, &scalar)
    });
    event.extend(bytes(5, &values.collect::<Vec<u8>>()));
    event
}

/// transformers' tags, so that curves lie over TRL's: `train/loss`, `eval/loss`.
fn tag(name: &str) -> String {
    match name.strip_prefix("eval_") {
        Some(rest) => format!("eval/{rest}"),
        None => format!("train/{name}"),
    }
}

/// A field of protobuf: its number and wire type in one, then its value.
fn field(number: u64, wire_type: u64) -> Vec<u8> {
    varint(number << 3 | wire_type)
}

fn integer(number: u64, value: u64) -> Vec<u8> {
    [field(number, 0), varint(value)].concat()
}

fn double(number: u64, value: f64) -> Vec<u8> {
    [field(number, 1), value.to_le_bytes().to_vec()].concat()
}

fn bytes(number: u64, value: &[u8]) -> Vec<u8> {
    [field(number, 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn float(number: u64, value: f32) -> Vec<u8> {
    [field(number, 5), value.to_le_bytes().to_vec()].concat()
}

/// Seven bits a byte, the lowest first; all bytes but the last have their top bit set.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// TFRecord's checksum: CRC-32C turned by 15 bits, plus a constant, since data may hold checksums itself.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: a row of metrics is half a kilobyte.
fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78; // reversed
    !data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4, and the check value of the CRC catalogue; masked, as tensorboard's own `masked_crc32c`.
    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!((masked_crc32c(b"123456789"), masked_crc32c(&[0; 32])), (0xc78a_b0e5, 0x0fd7_fffa));
    }

    /// Bytes of `tensorboard.compat.proto.event_pb2.Event(...).SerializeToString()`, tensorboard 2.21.
    #[test]
    fn events_are_what_protobuf_writes() {
        let row = MetricRow::new("dpo", 300, 0.5)
            .with("loss", 0.5)
            .with("eval_rewards/margins", -2.0)
            .with("kl", f64::NAN);
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(scalars(1.5, &row)), SCALARS);
        assert_eq!(hex(session_start(1.5, 301)), SESSION);
        assert_eq!(hex(version(1.5)), VERSION);
    }

    /// Lengths and checksums of every record, and the events without their time.
    fn read(path: &Path) -> Vec<Vec<u8>> {
        let whole = std::fs::read(path).unwrap();
        let (mut rest, mut events) = (whole.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let event = &rest[12..12 + length];
            assert_eq!((sum(8), sum(12 + length)), (masked_crc32c(&rest[..8]), masked_crc32c(event)));
            events.push(event[9..].to_vec());
            rest = &rest[16 + length..];
        }
        events
    }

    #[test]
    fn a_process_that_goes_on_writes_a_file_that_says_from_where() {
        let folder = tempfile::tempdir().unwrap();
        let row = |step| MetricRow::new("dpo", step, 0.0).with("loss", step as f64);
        let events = |event: Vec<u8>| event[9..].to_vec();
        for (resumed, steps) in [(0, [1, 2]), (1, [2, 3])] {
            let mut file = EventFile::create(folder.path(), resumed).unwrap();
            steps.into_iter().for_each(|step| file.add(&row(step)).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(2)); // names count microseconds
        }
        let mut paths: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert_eq!(paths.len(), 2);
        for (path, (resumed, steps)) in paths.iter().zip([(0, [1, 2]), (1, [2, 3])]) {
            let mut expected = vec![events(version(0.0)), events(session_start(0.0, resumed + 1))];
            expected.extend(steps.map(|step| events(scalars(0.0, &row(step)))));
            assert_eq!(read(path), expected);
        }
    }

    const SCALARS: &str = "09000000000000f83f10ac022a300a1b0a146576616c2f726577617264732f6d617267696e7315000000c00a110a0a747261696e2f6c6f7373150000003f";
    const SESSION: &str = "09000000000000f83f10ad023a020801";
    const VERSION: &str = "09000000000000f83f1a0d627261696e2e4576656e743a32";
}
