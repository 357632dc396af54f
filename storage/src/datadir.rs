//! The data directory: its lock, its layout, and the identity file that says whose it is.
