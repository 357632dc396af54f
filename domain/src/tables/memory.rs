//! see plan
/// Tables in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryTables {}
