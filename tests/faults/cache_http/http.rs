//! Request bodies, deadlines in headers, and what a failure says about the callee.
