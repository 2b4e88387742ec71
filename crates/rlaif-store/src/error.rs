//! What can go wrong between the program and its ledger.

use std::path::{Path, PathBuf};

/// An error of the ledger or of a JSONL file. Messages say what was being done, where, and the next step.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened or made.
    #[error("cannot open the ledger `{path}`", path = path.display())]
    Open {
        /// The ledger.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The disk, quota or volume is full.
    #[error(
        "the disk is full: {doing} failed in `{path}`; free some space and run the same command again, \
         everything stored before it is kept",
        path = path.display()
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
    },
    /// The file or file system does not accept writes.
    #[error(
        "`{path}` cannot be written: {doing} needs a writable file and folder; check permissions, or choose another \
         `run.dir`",
        path = path.display()
    )]
    ReadOnly {
        /// The file being written.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
    },
    /// Another process holds the ledger.
    #[error("`{path}` is in use by another process: {doing} waited for it in vain", path = path.display())]
    Busy {
        /// The ledger.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
    },
    /// The linked SQLite has the WAL-reset bug (3.7.0 to 3.51.2), which can corrupt a ledger.
    #[error("SQLite {found} can corrupt its files; 3.51.3 or newer is needed, so build with the bundled one")]
    SqliteTooOld {
        /// Its version.
        found: String,
    },
    /// A newer `rlaif` wrote the file.
    #[error(
        "`{path}` has layout {found}, and this program knows layouts up to {known}; use the newer `rlaif` that wrote it",
        path = path.display()
    )]
    Newer {
        /// The ledger.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The newest layout of this program.
        known: i64,
    },
    /// An older `rlaif` wrote the file, and it is only to be read.
    #[error(
        "`{path}` has layout {found}, and replies can be taken from layout {known} only; bring it up to date with any command \
         that works on its run, such as `rlaif plan` with its config, or leave it out",
        path = path.display()
    )]
    Older {
        /// The ledger.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The layout of this program.
        known: i64,
    },
    /// The file is something else.
    #[error("`{path}` is no ledger of rlaif; move it away or choose another `run.name`", path = path.display())]
    NotALedger {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error(
        "the ledger `{path}` is damaged ({what}); keep a copy, then restore a backup or choose another `run.name`",
        path = path.display()
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// What SQLite found.
        what: String,
    },
    /// A prompt's id is already taken by another prompt.
    #[error(
        "prompt `{id}` is in the ledger with another text, tags, reference or split; the stages that used it must be \
         cleared first"
    )]
    PromptChanged {
        /// The prompt.
        id: String,
    },
    /// A row refers to one that is not there, or takes a place that another holds.
    #[error("{doing} failed in `{path}`: {what} ({id})", path = path.display())]
    Conflict {
        /// The ledger.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// In words.
        what: String,
        /// The row's id.
        id: String,
    },
    /// A stored value does not read back.
    #[error("a row of `{table}` cannot be read: {what}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// In words.
        what: String,
    },
    /// Anything else that SQLite reports.
    #[error("{doing} failed in `{path}`", path = path.display())]
    Sqlite {
        /// The ledger.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// A file could not be read or written.
    #[error("{doing} `{path}` failed", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSONL file without a single usable row.
    #[error("`{path}` holds no usable row: {why}", path = path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        why: String,
    },
}

/// Primary result codes of SQLite, <https://sqlite.org/rescode.html>.
mod code {
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const READONLY: i32 = 8;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANTOPEN: i32 = 14;
    pub const CONSTRAINT: i32 = 19;
    pub const NOTADB: i32 = 26;
}

impl StoreError {
    /// Sorts an error of SQLite by what the user can do about it.
    pub(crate) fn from_sqlx(path: &Path, doing: &'static str, source: sqlx::Error) -> Self {
        let path = path.to_path_buf();
        let primary = source
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<i32>().ok())
            .map(|extended| extended & 0xff);
        match primary {
            Some(code::FULL) => Self::DiskFull { path, doing },
            Some(code::READONLY) => Self::ReadOnly { path, doing },
            Some(code::BUSY | code::LOCKED) => Self::Busy { path, doing },
            Some(code::CORRUPT) => Self::Damaged { path, what: source.to_string() },
            Some(code::NOTADB) => Self::NotALedger { path },
            Some(code::CANTOPEN) => Self::Open { path, source },
            _ => Self::Sqlite { path, doing, source },
        }
    }

    /// As [`Self::from_sqlx`], naming the row where a constraint failed.
    pub(crate) fn from_sqlx_row(path: &Path, doing: &'static str, id: &str, source: sqlx::Error) -> Self {
        let constraint = source.as_database_error().and_then(|error| {
            let extended: i32 = error.code()?.parse().ok()?;
            (extended & 0xff == code::CONSTRAINT).then(|| error.message().to_owned())
        });
        match constraint {
            Some(what) => Self::Conflict { path: path.to_path_buf(), doing, what, id: id.to_owned() },
            None => Self::from_sqlx(path, doing, source),
        }
    }

    /// Sorts an error of the file system likewise.
    pub(crate) fn from_io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull { path, doing },
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path, doing },
            _ => Self::Io { path, doing, source },
        }
    }
}
