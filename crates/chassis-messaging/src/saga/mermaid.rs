//! The definition as a picture: a Mermaid flowchart.

use super::definition::SagaDefinition;
use super::progress::{Kind, past_pivot};
use chassis_data::Backend;

impl<D, S, B: Backend> SagaDefinition<D, S, B> {
    /// The saga as a Mermaid flowchart: the way forward with full arrows, the way
    /// back with dotted ones. A step that fails begins with its own undo, which is
    /// left out where the step provably did nothing.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut lines = vec!["flowchart TD".to_owned(), "    start([start])".to_owned()];
        let undoable =
            |below: usize| (0..below).rev().find(|&step| self.plan.get(step) == Some(&Kind::Step));
        let back_to =
            |below: usize| undoable(below).map_or("cancelled".into(), |n| format!("u{n}"));
        let mut before = "start".to_owned();
        for (n, (step, kind)) in self.steps.iter().zip(&self.plan).enumerate() {
            let name = step.name;
            let shape = match kind {
                Kind::Step | Kind::Action => format!("[\"{name}\"]"),
                Kind::Local => format!("[[\"{name}\"]]"),
                Kind::Pivot => format!("{{{{\"{name}: pivot\"}}}}"),
                Kind::Wait { timeout } => format!("[/\"wait for {name}, {timeout:?}\"/]"),
            };
            lines.push(format!("    {before} --> s{n}{shape}"));
            before = format!("s{n}");
            if !past_pivot(&self.plan, n) {
                let label = if matches!(kind, Kind::Wait { .. }) { "too late" } else { "fails" };
                lines.push(format!("    s{n} -. {label} .-> {}", back_to(n + 1)));
            } else {
                lines.push(format!("    s{n} -. gives up .-> parked"));
            }
        }
        lines.push(format!("    {before} --> completed([completed])"));
        for (n, step) in self.steps.iter().enumerate().rev() {
            if self.plan.get(n) == Some(&Kind::Step) {
                lines.push(format!("    u{n}[\"undo {}\"] -.-> {}", step.name, back_to(n)));
            }
        }
        if lines.iter().any(|line| line.ends_with("cancelled")) {
            lines.push("    cancelled([cancelled])".to_owned());
        }
        if lines.iter().any(|line| line.ends_with("parked")) {
            lines.push("    parked([parked])".to_owned());
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chassis_core::Result;
    use chassis_data::Tx;

    use super::*;
    use crate::saga::StepInfo;

    async fn run(_: (), data: u8, _: StepInfo) -> Result<u8> {
        Ok(data)
    }

    async fn commit(_: (), _: &mut Tx, data: u8) -> Result<u8> {
        Ok(data)
    }

    #[test]
    fn the_way_forward_and_the_way_back() {
        let definition = SagaDefinition::<u8, ()>::new("greet", 1)
            .action("ask", run)
            .step("hold", run, run)
            .step("pay", run, run)
            .pivot("confirm", commit)
            .wait_for("heard", Duration::from_secs(60))
            .local("finish", commit);
        let expected = r#"flowchart TD
    start([start])
    start --> s0["ask"]
    s0 -. fails .-> cancelled
    s0 --> s1["hold"]
    s1 -. fails .-> u1
    s1 --> s2["pay"]
    s2 -. fails .-> u2
    s2 --> s3{{"confirm: pivot"}}
    s3 -. fails .-> u2
    s3 --> s4[/"wait for heard, 60s"/]
    s4 -. gives up .-> parked
    s4 --> s5[["finish"]]
    s5 -. gives up .-> parked
    s5 --> completed([completed])
    u2["undo pay"] -.-> u1
    u1["undo hold"] -.-> cancelled
    cancelled([cancelled])
    parked([parked])
"#;
        assert_eq!(definition.mermaid(), expected);
    }
}
