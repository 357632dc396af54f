//! A group's pages on their way from device to device.
//!
//! ```text
//!   u8      form = 1
//!   16, 16  box of who made the group, random bytes: its id is of these
//!   u8      1 if every member by these pages is sent them, otherwise 0
//!   u16     number of pages; each `bytes`, as page.rs has it
//! ```

use rossby_domain::wire::{Reader, WireError, Writer};

use super::page::read_box;
use super::{Group, MAX_PAGES, MAX_VERDICTS, Origin, Page};

const FORM: u8 = 1;
/// Bytes of the pages in one word, unless a single one has more.
const MAX_WORD_BYTES: usize = 60 * 1024;
/// No page has more bytes.
const MAX_PAGE_BYTES: usize = 512 + MAX_VERDICTS * 20;

/// Pages of a group, as they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The group.
    pub origin: Origin,
    /// Whether every member, as these pages have it, is sent them.
    pub to_all: bool,
    /// The pages.
    pub pages: Vec<Page>,
}

impl Word {
    /// All that is known of a group, in words that each fit an envelope. Those come first without which the others would
    /// say nothing.
    #[must_use]
    pub fn all_of(group: &Group, to_all: bool) -> Vec<Self> {
        let mut words: Vec<Self> = Vec::new();
        let mut room = 0;
        for page in group.by_rank() {
            let bytes = page.encode().len();
            match words.last_mut() {
                Some(word) if bytes <= room => {
                    word.pages.push(page.clone());
                    room -= bytes;
                }
                _ => {
                    words.push(Self {
                        origin: group.origin,
                        to_all,
                        pages: vec![page.clone()],
                    });
                    room = MAX_WORD_BYTES.saturating_sub(bytes);
                }
            }
        }
        // What is only told together is told to nobody on its own.
        if let [_, .., _] = &words[..] {
            words.iter_mut().for_each(|word| word.to_all = false);
        }
        words
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.pages.len()).unwrap_or(u16::MAX);
        let writer = Writer::default()
            .u8(FORM)
            .fixed(self.origin.maker.as_bytes())
            .fixed(&self.origin.nonce)
            .u8(self.to_all.into())
            .u16(count);
        let pages = self.pages.iter();
        pages
            .fold(writer, |writer, page| writer.bytes(&page.encode()))
            .finish()
    }

    /// The word in these bytes. `None` if it is of a later form.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORM {
            return Ok(None);
        }
        let origin = Origin {
            maker: read_box(&mut reader)?,
            nonce: reader.fixed()?,
        };
        let to_all = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Invalid("whom it is for")),
        };
        let count = usize::from(reader.u16()?);
        if count > MAX_PAGES {
            return Err(WireError::TooLong("list of pages"));
        }
        let page = |_| Page::decode(reader.bytes(MAX_PAGE_BYTES, "page")?);
        let pages = (0..count).map(page).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Some(Self {
            origin,
            to_all,
            pages,
        }))
    }
}
