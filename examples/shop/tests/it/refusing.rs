//! What keeps the shop from opening is one line and an exit code.

use std::net::TcpListener;

use crate::support::{Shop, complaint, get, run};

#[tokio::test]
async fn help_names_the_options() {
    let output = run(&["--help"], &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for promised in ["smoke", "--data", "--port", "--database", "--broker", "--report"] {
        assert!(text.contains(promised), "{promised} is not in {text}");
    }
}

#[tokio::test]
async fn a_wrong_option_is_named() {
    for (args, says) in [
        (&["--prot", "1"][..], "`--prot`"),
        (&["--port", "many"], "not `many`"),
        (&["--port", "65535"], "no room"),
        (&["--database", "mysql://h/d"], "postgres://"),
        (&["smoke", "--broker"], "--broker needs"),
    ] {
        let line = complaint(&run(args, &[]).await, 64);
        assert!(line.contains(says), "{args:?}: {line}");
    }
}

#[tokio::test]
async fn a_wrong_setting_is_named() {
    let line = complaint(&run(&[], &[("TELEMETRY__LOG_FORMAT", "verse")]).await, 64);
    assert!(line.contains("TELEMETRY__LOG_FORMAT"), "{line}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // One for the gateway, or the fourth of those that are looked at.
    let (_taken, port) = loop {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        if [1_013, 2, 1].into_iter().all(|below| is_free(port - below)) {
            break (taken, port);
        }
    };
    for (given, whose) in [(port, "gateway"), (port - 1_013, "admin port of payment")] {
        let output = run(&["--port", &given.to_string(), "--data", data], &[]).await;
        let line = complaint(&output, 1);
        assert!(line.contains(&port.to_string()) && line.contains(whose), "{line}");
        assert!(line.contains("--port"), "says what helps: {line}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    // Below a file there is no folder, not even for root.
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("data");
    let folder = folder.to_str().unwrap();
    let line = complaint(&run(&["--port", "0", "--data", folder], &[]).await, 1);
    assert!(line.contains(folder) && line.contains("--data"), "{line}");
}

#[tokio::test]
async fn a_second_shop_on_the_same_data_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let output = run(&["--port", "0", "--data", data.path().to_str().unwrap()], &[]).await;
    let line = complaint(&output, 1);
    assert!(line.contains("in use by another process"), "{line}");
    let (status, _) = get(shop.gateway, "/api/products").await;
    assert_eq!(status, 200, "the first one goes on");
}

#[tokio::test]
async fn a_report_that_cannot_be_written_closes_the_shop() {
    let data = tempfile::tempdir().unwrap();
    let report = data.path().join("no-such-folder").join("report.json");
    let (data, report) = (data.path().to_str().unwrap(), report.to_str().unwrap());
    let output = run(&["--port", "0", "--data", data, "--report", report], &[]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains(report), "{stderr}");
}
