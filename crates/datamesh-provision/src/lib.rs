//! Self-serve infrastructure from contracts.
