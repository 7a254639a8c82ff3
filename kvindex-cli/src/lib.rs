//! kvindex-cli
