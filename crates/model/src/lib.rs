//! lauf-model
