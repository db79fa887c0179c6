//! Settings from all sources together.

use std::{collections::BTreeMap, io::Write, time::Duration};

use serde::{Deserialize, Serialize};

use super::{CoreConfig, Entry, Loaded, Loader, OtlpProtocol};
use crate::Secret;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Http {
    host: String,
    port: u16,
    tags: Vec<String>,
    ports: Vec<u16>,
    #[serde(with = "super::duration")]
    timeout: Duration,
    limit: Option<u32>,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            host: "localhost".into(),
            port: 1,
            tags: vec![],
            ports: vec![],
            timeout: Duration::from_secs(1),
            limit: None,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Database {
    url: Secret,
}

impl Default for Database {
    fn default() -> Self {
        Database { url: "sqlite://data/x.db".into() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Own {
    http: Http,
    database: Database,
    services: BTreeMap<String, String>,
    lists: BTreeMap<String, Vec<String>>,
    #[serde(rename = "with-hyphen")]
    with_hyphen: Hyphens,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Hyphens {
    max_size: u32,
}

impl Default for Own {
    fn default() -> Self {
        // Not the default of `Http`: a partly set section must keep this one.
        Own {
            http: Http { port: 8084, ..Http::default() },
            database: Database::default(),
            services: BTreeMap::new(),
            lists: BTreeMap::new(),
            with_hyphen: Hyphens::default(),
        }
    }
}

/// A section of which one field chooses the defaults of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Pool {
    #[serde(serialize_with = "sizes")]
    size: String,
    threads: u32,
    queue: Queue,
    name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Queue {
    length: u32,
    password: Secret,
}

impl Pool {
    fn of(size: &str) -> Pool {
        let (threads, length) = if size == "large" { (64, 1_000) } else { (4, 10) };
        let queue = Queue { length, password: "hunter2".into() };
        Pool { size: size.to_owned(), threads, queue, name: "pool".to_owned() }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::of("small")
    }
}

fn sizes<S: serde::Serializer>(size: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let presets = ["small", "large"].into_iter().map(|size| (size, Pool::of(size)));
    super::preset::serialize(size, presets, serializer)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Pools {
    mine: Pool,
    others: BTreeMap<String, Pool>,
}

impl Default for Pools {
    fn default() -> Self {
        // The code has changed both a number in which the presets differ and one in which not.
        let mine = Pool { threads: 5, name: "mine".to_owned(), ..Pool::of("small") };
        Pools { mine, others: BTreeMap::new() }
    }
}

#[test]
fn a_preset_moves_what_nobody_has_set_and_says_so() {
    let vars =
        [("MINE__SIZE", "large"), ("MINE__QUEUE__LENGTH", "10"), ("OTHERS__A__SIZE", "large")];
    let loaded = env(&vars).load::<Pools>().unwrap();
    let expected = Pool {
        queue: Queue { length: 10, ..Pool::of("large").queue },
        name: "mine".to_owned(),
        ..Pool::of("large")
    };
    assert_eq!(loaded.settings.mine, expected);
    assert_eq!(loaded.settings.others["a"], Pool::of("large"));
    let entry = |key: &str| loaded.entries.iter().find(|entry| entry.key == key).unwrap();
    for (key, value, origin) in [
        ("mine.size", "large", "environment variable MINE__SIZE"),
        ("mine.threads", "64", "mine.size"),
        ("mine.queue.length", "10", "environment variable MINE__QUEUE__LENGTH"),
        ("mine.queue.password", "***", "default"),
        ("mine.name", "mine", "default"),
        ("others.a.threads", "64", "others.a.size"),
    ] {
        let Entry { value: shown, origin: from, .. } = entry(key);
        assert_eq!((shown.as_str(), from.as_str()), (value, origin), "{key}");
    }
    // The one of the code changes nothing, and nor does none.
    for vars in [&[("MINE__SIZE", "small")][..], &[]] {
        assert_eq!(env(vars).load::<Pools>().unwrap().settings, Pools::default());
    }
}

fn env(vars: &[(&str, &str)]) -> Loader {
    Loader::new().env(vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

fn load(vars: &[(&str, &str)]) -> Loaded<Own> {
    env(vars).load().unwrap()
}

fn problems(vars: &[(&str, &str)]) -> Vec<String> {
    env(vars).load::<Own>().unwrap_err().problems().to_vec()
}

#[test]
fn nothing_set_gives_the_defaults_in_clear() {
    let loaded = load(&[("PATH", "/bin"), ("HTTP", "x"), ("OTHER__KEY", "x")]);
    assert_eq!(loaded.settings.http.port, 8084);
    assert_eq!(loaded.settings.database.url.expose(), "sqlite://data/x.db");
    assert_eq!(loaded.core.admin.port, 9090);
    assert!(loaded.entries.iter().all(|entry| entry.origin == "default"));
}

#[test]
fn the_environment_is_read_as_the_type_of_the_key() {
    let loaded = load(&[
        ("HTTP__HOST", "1234"),
        ("HTTP__TAGS", "a,b"),
        ("HTTP__TIMEOUT", "250ms"),
        ("HTTP__LIMIT", "7"),
        ("SERVICES__other", "x:1"),
        ("LISTS__a", "x:1, y:2"),
        ("LISTS__b", "x:1"),
        ("ADMIN__PORT", "0"),
    ]);
    let http = loaded.settings.http;
    assert_eq!((http.host.as_str(), http.port, http.limit), ("1234", 8084, Some(7)));
    assert_eq!(http.tags, ["a", "b"]);
    assert_eq!(http.timeout, Duration::from_millis(250));
    assert_eq!(loaded.settings.services["other"], "x:1");
    assert_eq!(loaded.settings.lists["a"], ["x:1", "y:2"]);
    assert_eq!(loaded.settings.lists["b"], ["x:1"]);
    assert_eq!(loaded.core.admin.port, 0);
}

#[test]
fn names_of_others_are_understood_and_ours_win() {
    let loaded = load(&[
        ("DATABASE_URL", "postgres://u:p@h/d"),
        ("OTEL_SERVICE_NAME", "items"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
        ("NATS_URL", "nats://not-a-key-here"),
        ("RUST_LOG", "debug"),
    ]);
    assert_eq!(loaded.settings.database.url.expose(), "postgres://u:p@h/d");
    assert_eq!(loaded.core.service.name.as_deref(), Some("items"));
    assert_eq!(loaded.core.telemetry.sample_ratio, 0.1);
    assert_eq!(loaded.core.telemetry.otlp_endpoint.as_deref(), Some("http://c:4317"));
    assert_eq!(loaded.core.telemetry.log_filter, "debug");
    let url = loaded.entries.iter().find(|entry| entry.key == "database.url").unwrap();
    assert_eq!(url.value, "postgres://***@h/d");
    assert_eq!(url.origin, "environment variable DATABASE_URL");

    let both = load(&[("DATABASE_URL", "a://b"), ("DATABASE__URL", "c://d")]);
    assert_eq!(both.settings.database.url.expose(), "c://d");
}

#[test]
fn a_secret_may_stand_in_a_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "postgres://u:p@h/d").unwrap();
    let path = file.path().to_str().unwrap();
    for name in ["DATABASE_URL_FILE", "DATABASE__URL_FILE"] {
        assert_eq!(load(&[(name, path)]).settings.database.url.expose(), "postgres://u:p@h/d");
    }
    let problems = problems(&[("DATABASE__URL_FILE", "/nowhere")]);
    assert!(problems[0].contains("DATABASE__URL_FILE names the file /nowhere"), "{problems:?}");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    assert_eq!(
        problems(&[("HTTP__PROT", "1"), ("HTTP__COMPLETELY_OTHER", "1")]),
        [
            "unknown setting `http.completely_other` (environment variable \
             HTTP__COMPLETELY_OTHER); --print-config lists the known keys",
            "unknown setting `http.prot` (environment variable HTTP__PROT); did you mean \
             `http.port`?",
        ]
    );
}

#[test]
fn a_slip_in_the_name_of_a_section_is_refused_and_what_is_not_ours_left_alone() {
    for (name, nearest) in [("HTPP__PORT", "http.port"), ("DATABSE__URL", "database.url")] {
        let problem = &problems(&[(name, "1")])[0];
        assert!(problem.contains(&format!("did you mean `{nearest}`?")), "{problem}");
    }
    load(&[("GATEWAY__PORT", "1"), ("HTTP_PORT", "tcp://10.0.0.1:80"), ("XDG__HOME", "x")]);
}

/// `service` is a section of ours, and `services` is one letter away from it.
#[test]
fn places_of_services_are_no_slip_of_a_section() {
    let places = env(&[("services__greeter__http__0", "http://10.0.0.7:80")]);
    places.load::<CoreConfig>().unwrap();
}

#[test]
fn wrong_values_name_key_and_origin() {
    assert_eq!(
        problems(&[("HTTP__PORT", "abc")]),
        ["setting `http.port` is wrong (environment variable HTTP__PORT): `abc` is not a \
          number"]
    );
    for (name, value) in [("HTTP__PORT", "70000"), ("HTTP__TIMEOUT", "7"), ("HTTP__LIMIT", "x")] {
        let problem = &problems(&[(name, value)])[0];
        assert!(problem.contains(&format!("(environment variable {name})")), "{problem}");
    }
}

#[test]
fn a_file_is_below_the_environment_and_above_the_defaults() {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    writeln!(file, "[http]\nport = 5\nlimit = 9\ntags = ['x']\n[services]\na = 'b'").unwrap();
    let loader = env(&[("HTTP__PORT", "6")]).file(file.path());
    let loaded = loader.load::<Own>().unwrap();
    assert_eq!((loaded.settings.http.port, loaded.settings.http.limit), (6, Some(9)));
    let limit = loaded.entries.iter().find(|entry| entry.key == "http.limit").unwrap();
    assert_eq!(limit.origin, file.path().display().to_string());
    let set = loader.clone().set("http.port", "7", "--port").load::<Own>().unwrap();
    assert_eq!(set.settings.http.port, 7);

    writeln!(file, "[htpp]\nport = 1").unwrap();
    let problems = loader.load::<Own>().unwrap_err().to_string();
    assert!(problems.contains("did you mean `http.port`"), "{problems}");
    let missing = Loader::new().file("/nowhere.toml").load::<Own>().unwrap_err().to_string();
    assert!(missing.contains("/nowhere.toml"), "{missing}");
}

fn toml(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn entry<'a>(loaded: &'a Loaded<Own>, key: &str) -> &'a Entry {
    loaded.entries.iter().find(|entry| entry.key == key).unwrap()
}

#[test]
fn a_list_element_may_look_like_a_number() {
    let loaded = load(&[("LISTS__a", "7"), ("HTTP__TAGS", "7"), ("HTTP__PORTS", "1,2")]);
    assert_eq!(loaded.settings.lists["a"], ["7"]);
    assert_eq!(loaded.settings.http.tags, ["7"]);
    assert_eq!(loaded.settings.http.ports, [1, 2]);
    assert_eq!(load(&[("HTTP__PORTS", "1")]).settings.http.ports, [1]);
}

#[test]
fn a_value_that_replaces_another_does_not_fall_back_to_it() {
    let loader = env(&[("HTTP__LIMIT", "7")]).set("http.limit", "x", "--limit");
    let problem = loader.load::<Own>().unwrap_err().to_string();
    assert!(problem.starts_with("setting `http.limit` is wrong (--limit): "), "{problem}");
}

#[test]
fn a_text_that_nothing_fits_is_told_in_its_own_terms() {
    for (name, value, says) in [
        ("HTTP__LIMIT", "x", "invalid type: string \"x\", expected u32"),
        ("HTTP__LIMIT", "-5", "invalid value: integer `-5`, expected u32"),
        ("HTTP__PORTS", "1,x", "invalid type: string \"x\", expected u16"),
    ] {
        let problem = &problems(&[(name, value)])[0];
        assert!(problem.ends_with(says), "{problem}");
    }
}

#[test]
fn an_empty_text_unsets_what_is_optional() {
    let file = toml("[http]\nlimit = 9\ntags = ['x']\n[service]\nname = 'n'");
    let loaded = env(&[("HTTP__LIMIT", ""), ("HTTP__TAGS", ""), ("SERVICE__NAME", "")])
        .file(file.path())
        .load::<Own>()
        .unwrap();
    assert_eq!(loaded.settings.http.limit, None);
    assert!(loaded.settings.http.tags.is_empty());
    assert_eq!(loaded.core.service.name, None);
    assert!(problems(&[("HTTP__PORT", "")])[0].contains("is not a number"));
}

#[test]
fn an_empty_name_of_others_is_not_set() {
    let empty = ["DATABASE_URL", "RUST_LOG", "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER_ARG"];
    let more = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "DATABASE_URL_FILE"];
    let vars: Vec<_> = empty.into_iter().chain(more).map(|name| (name, "")).collect();
    assert!(load(&vars).entries.iter().all(|entry| entry.origin == "default"));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_none_of_ours_or_named() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    let vars = |name: &str| [(OsString::from(name), OsString::from_vec(vec![b'x', 0xff]))];
    assert!(Loader::new().env(vars("LS_COLORS")).load::<Own>().is_ok());
    let problem = Loader::new().env(vars("HTTP__HOST")).load::<Own>().unwrap_err();
    assert_eq!(problem.to_string(), "environment variable HTTP__HOST is not valid Unicode");
    let name = [(OsString::from_vec(vec![0xff]), OsString::from("x"))];
    assert!(Loader::new().env(name).load::<Own>().is_ok());
}

#[test]
fn the_words_of_open_telemetry_set_sampling_and_export() {
    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317");
    let telemetry = |vars: &[(&str, &str)]| load(vars).core.telemetry;
    for (sampler, arg, ratio) in [
        ("always_off", "0.5", 0.0),
        ("parentbased_always_on", "0.5", 1.0),
        ("traceidratio", "0.5", 0.5),
        ("parentbased_traceidratio", "", 1.0),
    ] {
        let vars = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", arg)];
        assert_eq!(telemetry(&vars).sample_ratio, ratio, "{sampler}");
    }
    let ours =
        telemetry(&[("OTEL_TRACES_SAMPLER", "always_off"), ("TELEMETRY__SAMPLE_RATIO", "0.25")]);
    assert_eq!(ours.sample_ratio, 0.25);
    assert!(problems(&[("OTEL_TRACES_SAMPLER", "xray")])[0].contains("`xray`"));

    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317");
    let endpoint = telemetry(&[traces, ENDPOINT]).otlp_endpoint;
    assert_eq!(endpoint.as_deref(), Some("http://traces:4317"));
    for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(telemetry(&[ENDPOINT, off]).otlp_endpoint, None, "{off:?}");
    }
    assert!(telemetry(&[ENDPOINT, ("OTEL_SDK_DISABLED", "0")]).otlp_endpoint.is_some());

    let batches = telemetry(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
        ("OTEL_BSP_SCHEDULE_DELAY", "250"),
    ]);
    assert_eq!(batches.otlp_protocol, OtlpProtocol::HttpProtobuf);
    assert_eq!((batches.span_queue, batches.span_batch), (100, 10));
    assert_eq!(batches.span_delay, Duration::from_millis(250));
    assert!(problems(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")])[0].contains("http/protobuf"));
}

#[test]
fn keys_with_hyphens_are_named_by_underscores_in_the_environment() {
    let loaded = load(&[("WITH_HYPHEN__MAX_SIZE", "7"), ("SERVICES__a_b", "x")]);
    assert_eq!(loaded.settings.with_hyphen.max_size, 7);
    assert_eq!(loaded.settings.services["a_b"], "x");
    let file = toml("[with-hyphen]\nmax-size = 8\n[services]\nc-d = 'y'");
    let loaded = Loader::new().file(file.path()).load::<Own>().unwrap();
    assert_eq!(loaded.settings.with_hyphen.max_size, 8);
    assert_eq!(loaded.settings.services["c-d"], "y");
}

#[test]
fn a_name_with_dots_in_a_file_is_one_name() {
    let file = toml("[services]\n'db.example.org' = 'x:1'\nother = 'y:1'");
    let loaded = env(&[("SERVICES__third", "z:1")]).file(file.path()).load::<Own>().unwrap();
    assert_eq!(loaded.settings.services["db.example.org"], "x:1");
    assert_eq!(loaded.settings.services["other"], "y:1");
    assert_eq!(entry(&loaded, "services.other").origin, file.path().display().to_string());
    let third = entry(&loaded, "services.third");
    assert_eq!(third.origin, "environment variable SERVICES__third");
}

#[test]
fn a_value_of_the_wrong_type_in_a_file_names_file_and_key() {
    for (text, says) in [
        ("[http]\nport = 'abc'", "setting `http.port` is wrong (FILE): invalid type: string"),
        ("[http]\ntags = [1]", "setting `http.tags[0]` is wrong (FILE): invalid type"),
        ("[http.port]\nx = 1", "setting `http.port` is wrong (FILE): invalid type: map"),
        ("http = 5", "setting `http` is wrong (FILE): it is a section, not a value"),
        ("[htpp]", "unknown setting `htpp` (FILE)"),
    ] {
        let file = toml(text);
        let says = says.replace("FILE", &file.path().display().to_string());
        let problem = Loader::new().file(file.path()).load::<Own>().unwrap_err().to_string();
        assert!(problem.starts_with(&says), "{text}: {problem}");
    }
}

#[test]
fn no_error_and_no_debug_form_repeats_a_secret() {
    for text in [
        "[database]\nurl = 31337",
        "[database]\nurl = [31337]",
        "[database]\nurl = 'x://u:31337@h",
        "[database]\nurl = 'x://u:31337@h'\n  url = 'x://u:31337@h'",
        "[database]\n\"31337",
    ] {
        let file = toml(text);
        let problem = Loader::new().file(file.path()).load::<Own>().unwrap_err().to_string();
        assert!(problem.contains(&file.path().display().to_string()), "{text}: {problem}");
        assert!(!problem.contains("31337"), "{text}: {problem}");
        assert_eq!(problem.lines().count(), 1, "{text}: {problem}");
    }
    let loader = env(&[("DATABASE_URL", "x://u:hunter2@h")]).set("database.url", "hunter2", "-");
    let shown = format!("{loader:?} {:?}", loader.load::<Own>().unwrap());
    assert!(shown.contains("DATABASE_URL") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_malformed_file_names_the_line() {
    let file = toml("[http]\nport = 1\nhost = \n");
    let problem = Loader::new().file(file.path()).load::<Own>().unwrap_err().to_string();
    assert!(problem.contains("is not valid TOML in line 3: "), "{problem}");
}
