//! Hawk: who is asking.
