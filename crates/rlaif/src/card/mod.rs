//! Cards: what an exported file or model is, how it was made, what it is worth and what it is not, beside it as Markdown with the front
//! matter of the Hugging Face Hub.
//!
//! | file | is |
//! |---|---|
//! | `data.rs` | the card of an exported file of preferences, responses or people's verdicts |
//! | `model.rs` | the card of an exported model |
//! | `facts.rs` | what both are written from: manifest, ledger, `audit.json` |
//! | `judges.rs` | who judged, and how |
//! | `markdown.rs` | text of others as text and nothing else |

mod data;
mod facts;
mod judges;
mod markdown;
mod model;

pub use data::{Exported, data_card};
pub use facts::Facts;
pub use model::model_card;

use std::path::{Path, PathBuf};

/// The card's place beside a file: `prefs.jsonl` has `prefs.card.md`.
pub fn beside(file: &Path) -> PathBuf {
    file.with_extension("card.md")
}
