//! lauf-engine
