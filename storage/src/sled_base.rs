//! sled as the base.
