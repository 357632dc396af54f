//! see plan
/// A network in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {}
