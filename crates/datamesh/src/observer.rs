//! Progress for people, and faults for the tests that crash a publish on purpose.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use datamesh_app::Progress;
use datamesh_core::ports::{PublishStep, StepObserver};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Environment variable with a fault: `kill:<step>[:<n>]` dies by SIGKILL when the step is reached for the n-th time,
/// `hold:<step>:<file>` makes the file and waits until somebody removes it.
pub(crate) const FAULT: &str = "DATAMESH_FAULT";

enum Fault {
    Kill(PublishStep, usize),
    Hold(PublishStep, PathBuf),
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (kind, step, rest) = (parts.next()?, parts.next()?, parts.next());
        let step = PublishStep::ALL.into_iter().find(|known| known.as_str() == step)?;
        match kind {
            "kill" => Some(Self::Kill(step, rest.map_or(Some(1), |rest| rest.parse().ok())?)),
            "hold" => Some(Self::Hold(step, PathBuf::from(rest?))),
            _ => None,
        }
    }
}

/// Shows progress on a terminal.
pub(crate) struct Observer {
    bars: Option<(MultiProgress, Mutex<HashMap<String, ProgressBar>>)>,
    /// What stands before a table's name: the product, where several are worked on.
    prefix: String,
    /// Who hears it instead of a terminal.
    told: Option<Arc<dyn Progress>>,
    fault: Option<Fault>,
    reached: Mutex<HashMap<&'static str, usize>>,
}

impl Observer {
    pub(crate) fn new(show: bool) -> Self {
        Self::within(show.then(MultiProgress::new), String::new())
    }

    /// An observer of one of several products, whose bars share a display.
    pub(crate) fn within(display: Option<MultiProgress>, prefix: String) -> Self {
        let fault = std::env::var(FAULT).ok().and_then(|text| Fault::parse(&text));
        let bars = display.map(|display| (display, Mutex::default()));
        let told = crate::caller::current().and_then(|caller| caller.progress.clone());
        Self { bars, prefix, told, fault, reached: Mutex::default() }
    }
}

impl Observer {
    /// Takes the bars off the terminal.
    pub(crate) fn finish(&self) {
        if let Some((_, bars)) = &self.bars {
            bars.lock().unwrap_or_else(PoisonError::into_inner).drain().for_each(|(_, bar)| bar.finish_and_clear());
        }
    }
}

impl StepObserver for Observer {
    fn reached(&self, step: PublishStep) {
        let count = {
            let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
            let count = reached.entry(step.as_str()).or_default();
            *count += 1;
            *count
        };
        if step == PublishStep::Judged {
            self.finish();
        }
        if let Some(told) = &self.told {
            told.reached(step);
        }
        match &self.fault {
            Some(Fault::Kill(at, nth)) if *at == step && *nth == count => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
            Some(Fault::Hold(at, path)) if *at == step && count == 1 && std::fs::write(path, step.as_str()).is_ok() => {
                while path.exists() {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
            _ => {}
        }
    }
}

impl Progress for Observer {
    fn read(&self, table: &str, bytes: u64, total: Option<u64>) {
        if let Some(told) = &self.told {
            told.read(&format!("{}{table}", self.prefix), bytes, total);
        }
        let Some((display, bars)) = &self.bars else { return };
        let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(table.to_owned()).or_insert_with(|| {
            let template = match total {
                Some(_) => "{prefix:>20} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
                None => "{prefix:>20} {spinner} {bytes} {binary_bytes_per_sec}",
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            display.add(bar.with_style(style).with_prefix(format!("{}{table}", self.prefix)))
        });
        bar.inc(bytes);
    }
}
