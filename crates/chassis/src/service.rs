//! `service!`, the short spelling of a service's `assemble` and `main`.
//!
//! It is `macro_rules!` and nothing that it writes is hidden: a function that adds parts to
//! an [`App`](crate::App) in the order of the table below, and a `main` that runs it. The
//! arms read one key at a time into a slot each, so that keys may stand in any order and a
//! wrong one is a compile error that names the allowed ones.

/// Declares a service: expands to `pub async fn assemble(app, config)` and `pub fn main()`.
///
/// | key | value | default |
/// |---|---|---|
/// | `name:` | what others call it | the package's name |
/// | `config:` | the type of its settings | [`DefaultConfig`](crate::DefaultConfig) |
/// | `state:` | `async fn(&App, &Config) -> Result<State>` | none |
/// | `probes:` | `{ "name" => fn(&State) -> impl Probe, … }` | none |
/// | `parts:` | `[fn(&State) -> impl Component, …]` | none |
/// | `grpc:` | `fn(&State) -> impl Into<grpc::Services>`, such as tonic's `Routes`; served with `config.grpc` | none |
/// | `http:` | `fn(&State) -> impl Into<http::Routes>`, such as an `axum::Router`, alone or with its OpenAPI document; served with `config.http` | none |
/// | `one_port:` | `true`: gRPC on the port of HTTP, by [`with_grpc`](crate::http::Server::with_grpc) | two ports |
/// | `register:` | `fn(&State) -> impl Component`, last to start, first to stop | none |
///
/// Without `state:`, the functions take no argument. Components start in the order of the
/// table, after the admin port, and stop in reverse.
///
/// ```no_run
/// # fn router() -> axum::Router { axum::Router::new() }
/// chassis::service! { http: router }
/// ```
#[macro_export]
macro_rules! service {
    ($($body:tt)*) => {
        $crate::__service! {
            @read
            [(::core::env!("CARGO_PKG_NAME")) ($crate::DefaultConfig) () {} [] () () () ()]
            $($body)*
        }
    };
}

/// The arms behind [`service!`]: `@read` fills the slots, `@write` emits the functions.
/// Slots: name, config, state, probes, parts, grpc, http, one_port, register.
#[doc(hidden)]
#[macro_export]
macro_rules! __service {
    // One arm per key, with and without what follows it.
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] name: $v:expr $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [($v) $c $s $p $q $g $h $o $r] $($($rest)*)? }
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] config: $v:ty $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [$n ($v) $s $p $q $g $h $o $r] $($($rest)*)? }
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] state: $v:expr $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [$n $c ($v) $p $q $g $h $o $r] $($($rest)*)? }
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] probes: { $($v:tt)* } $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [$n $c $s { $($v)* } $q $g $h $o $r] $($($rest)*)? }
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] parts: [ $($v:tt)* ] $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [$n $c $s $p [ $($v)* ] $g $h $o $r] $($($rest)*)? }
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] grpc: $v:expr $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [$n $c $s $p $q ($v) $h $o $r] $($($rest)*)? }
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] http: $v:expr $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [$n $c $s $p $q $g ($v) $o $r] $($($rest)*)? }
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] register: $v:expr $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [$n $c $s $p $q $g $h $o ($v)] $($($rest)*)? }
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt $h:tt $o:tt $r:tt] one_port: true $(, $($rest:tt)*)?) => {
        $crate::__service! { @read [$n $c $s $p $q $g $h (true) $r] $($($rest)*)? }
    };
    (@read $slots:tt probes: $($rest:tt)*) => {
        ::core::compile_error!("`probes:` is written `probes: { \"name\" => Type::probe, … }`");
    };
    (@read $slots:tt parts: $($rest:tt)*) => {
        ::core::compile_error!("`parts:` is written `parts: [Type::component, …]`");
    };
    (@read $slots:tt one_port: $($rest:tt)*) => {
        ::core::compile_error!("`one_port:` is written `one_port: true`; without it there are two ports");
    };
    (@read $slots:tt $key:ident $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "unknown key `", ::core::stringify!($key), "` in service!: the keys are name, config, \
             state, probes, parts, grpc, http, one_port, register, each written `key: value`"
        ));
    };
    // Nothing to run.
    (@read [$n:tt $c:tt $s:tt $p:tt [] () () $o:tt $r:tt]) => {
        ::core::compile_error!("service! has nothing to run: give it at least one of the keys parts, grpc, http");
    };
    // One port for what is not there.
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt () $h:tt (true) $r:tt]) => {
        ::core::compile_error!("`one_port: true` needs both of the keys grpc, http");
    };
    (@read [$n:tt $c:tt $s:tt $p:tt $q:tt $g:tt () (true) $r:tt]) => {
        ::core::compile_error!("`one_port: true` needs both of the keys grpc, http");
    };
    (@read [($n:expr) ($c:ty) $s:tt {$($pn:expr => $pv:expr),* $(,)?} [$($q:expr),* $(,)?] $g:tt $h:tt $o:tt $r:tt]) => {
        /// Adds the parts of this service to an app, in the order of their start.
        ///
        /// Dropping the future closes what was opened so far.
        ///
        /// # Errors
        /// Fails if what the service needs, such as its database, cannot be reached.
        pub async fn assemble(app: $crate::App, config: $c) -> $crate::Result<$crate::App> {
            $crate::__service!(@state state, app, config, $s);
            $(let app = app.probe($pn, $crate::__service!(@call $s, state, $pv));)*
            $(let app = app.with($crate::__service!(@call $s, state, $q));)*
            $crate::__service!(@servers $o, $g, $h, $s, app, config, state);
            $crate::__service!(@register $r, $s, app, state);
            let _ = &config;
            ::core::result::Result::Ok(app)
        }

        /// Runs this service as a process of its own.
        pub fn main() -> $crate::Exit {
            $crate::run($crate::service_info!($n), assemble)
        }
    };

    (@state $state:ident, $app:ident, $config:ident, ()) => {};
    (@state $state:ident, $app:ident, $config:ident, ($v:expr)) => {
        let $state = ($v)(&$app, &$config).await?;
    };
    (@call (), $state:ident, $v:expr) => { ($v)() };
    (@call $s:tt, $state:ident, $v:expr) => { ($v)(&$state) };
    (@servers (), $g:tt, $h:tt, $s:tt, $app:ident, $config:ident, $state:ident) => {
        $crate::__service!(@grpc $g, $s, $app, $config, $state);
        $crate::__service!(@http $h, $s, $app, $config, $state);
    };
    (@servers (true), ($g:expr), ($h:expr), $s:tt, $app:ident, $config:ident, $state:ident) => {
        let grpc = $crate::grpc::Server::new(
            &$config.grpc,
            $crate::__service!(@call $s, $state, $g),
        );
        let http = $crate::http::Server::new(
            &$config.http,
            $crate::__service!(@call $s, $state, $h),
        );
        let $app = $app.with(http.with_grpc(grpc));
    };
    (@grpc (), $s:tt, $app:ident, $config:ident, $state:ident) => {};
    (@grpc ($v:expr), $s:tt, $app:ident, $config:ident, $state:ident) => {
        let $app = $app.with($crate::grpc::Server::new(
            &$config.grpc,
            $crate::__service!(@call $s, $state, $v),
        ));
    };
    (@http (), $s:tt, $app:ident, $config:ident, $state:ident) => {};
    (@http ($v:expr), $s:tt, $app:ident, $config:ident, $state:ident) => {
        let $app = $app.with($crate::http::Server::new(
            &$config.http,
            $crate::__service!(@call $s, $state, $v),
        ));
    };
    (@register (), $s:tt, $app:ident, $state:ident) => {};
    (@register ($v:expr), $s:tt, $app:ident, $state:ident) => {
        let $app = $app.with($crate::__service!(@call $s, $state, $v));
    };
}
