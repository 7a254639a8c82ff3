//! kvindex-bench
