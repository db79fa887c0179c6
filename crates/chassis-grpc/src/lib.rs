//! gRPC server and client with the chassis stack on.
