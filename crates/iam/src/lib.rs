//! lauf-iam
