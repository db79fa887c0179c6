//! HTTP server and client with the chassis stack on.
