//! see plan
/// A disk in memory that loses what was not synced.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {}
