//! Files that are there whole or not at all, whatever happens while they are written.

use super::BadRow;
use crate::{Result, StoreError};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes one JSON value a line: into a file beside `path`, to the disk, and then over `path` in one step.
///
/// # Errors
/// If the file cannot be written; it is then as it was before.
pub fn write_jsonl<T: Serialize>(path: &Path, rows: impl IntoIterator<Item = T>) -> Result<()> {
    let fresh = beside(path);
    let written = write_rows(&fresh, rows).and_then(|()| {
        std::fs::rename(&fresh, path)?;
        sync_folder(path)
    });
    written.map_err(|error| {
        // Nothing depends on its being gone; the error to report is the first one.
        let _ = std::fs::remove_file(&fresh);
        StoreError::from_io(path, "writing", error)
    })
}

/// Writes the rows that were kept aside, with line, reason and excerpt: `{file}.rejected.jsonl` in the run folder.
///
/// # Errors
/// If the file cannot be written.
pub fn write_bad_rows(path: &Path, rows: &[BadRow]) -> Result<()> {
    write_jsonl(path, rows)
}

fn write_rows<T: Serialize>(path: &Path, rows: impl IntoIterator<Item = T>) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let mut writer = BufWriter::new(file);
    for row in rows {
        serde_json::to_writer(&mut writer, &row)?;
        writer.write_all(b"\n")?;
    }
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// `.name.PID.tmp` in the same folder: a rename is one step only within a file system.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// The rename itself is on the disk only once the folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
