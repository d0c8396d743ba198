//! lauf-store
