//! Texts of others in their slots: between tags with a random code that occurs in none of them, so that no text can close its own
//! slot, and with control tokens broken up and invisible characters removed, so that none can open a turn or say what the reader
//! does not see.
//!
//! A template gets the whole slot, tags and all, and never the bare text; after it was filled in, every slot must stand there as it
//! was made.

use super::TemplateError;
use super::front_matter::Field;
use crate::defence::{neutralise, tag_code};

/// A text between its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub field: Field,
    /// Opening tag, text, closing tag.
    pub block: String,
}

/// The slots of one turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slots {
    code: String,
    pub slots: Vec<Slot>,
}

impl Slots {
    /// Slots for texts with their fields and the names of their tags; texts are made harmless here.
    pub fn new(nonce: u64, texts: &[(Field, String, &str)]) -> Self {
        let harmless: Vec<String> = texts.iter().map(|(_, _, text)| neutralise(text)).collect();
        let code = tag_code(nonce, &harmless.iter().map(String::as_str).collect::<Vec<_>>());
        let slots = texts
            .iter()
            .zip(&harmless)
            .map(|((field, name, _), text)| Slot {
                field: *field,
                block: format!("<{name}_{code}>\n{text}\n</{name}_{code}>"),
            })
            .collect();
        Self { code, slots }
    }

    /// Whether the turn holds only whole slots: each as it was made, and the code nowhere else.
    ///
    /// # Errors
    /// If a filter of the template changed one, which would open it.
    pub fn check(&self, file: &str, turn: &str) -> Result<(), TemplateError> {
        let whole: usize = self.slots.iter().map(|slot| turn.matches(&slot.block).count()).sum();
        if turn.matches(&self.code).count() == 2 * whole {
            return Ok(());
        }
        let message = "it changes a text between its tags, so that the text could leave its slot";
        Err(TemplateError::new(
            file,
            None,
            message,
            "Show the fields without filters and without parts of them",
        ))
    }
}
