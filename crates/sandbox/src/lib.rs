//! lauf-sandbox
