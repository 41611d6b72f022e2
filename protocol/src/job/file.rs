//! The job file: TOML, strict keys, human units.
//!
//! Every error names the line, the reason and what to write instead.

mod validation;

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use cid::Cid;
use serde::{Deserialize, Deserializer};

use self::validation::ValidationSection;
use super::spec::{Collect, JobSpec, Program, SpecError, SweepParameter, SweepValues, Work};
use super::stage::StageSection;
use crate::content;
use crate::execution::Limits;
use crate::ids::ProjectId;
use crate::limits::JOB_FILE_BYTES_MAX;
use crate::time::{Timestamp, millis};

/// A job as its owner wrote it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    version: u8,
    name: String,
    program: ProgramSection,
    sweep: Option<BTreeMap<String, ValuesSection>>,
    inputs: Option<InputsSection>,
    #[serde(default)]
    resources: ResourcesSection,
    #[serde(default)]
    validation: ValidationSection,
    collect: Option<CollectSection>,
    #[serde(default)]
    stage: Vec<StageSection>,
}

/// What a job file says about a dataset, image or module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Content that the project already has.
    Cid(Cid),
    /// A file or folder beside the job file, added at submission.
    File(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgramSection {
    image: Option<Reference>,
    module: Option<Reference>,
    #[serde(default)]
    args: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a list of values or { from = 0, to = 7, step = 1 }")]
enum ValuesSection {
    List(Vec<Value>),
    Range(RangeSection),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeSection {
    from: i64,
    to: i64,
    #[serde(default = "one")]
    step: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "an integer or a text")]
enum Value {
    Integer(i64),
    Text(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputsSection {
    dataset: Option<Reference>,
    files_per_unit: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ResourcesSection {
    cpus: f64,
    #[serde(deserialize_with = "size")]
    memory: u64,
    #[serde(deserialize_with = "size")]
    tmp: u64,
    #[serde(deserialize_with = "size")]
    output: u64,
    output_files: u32,
    pids: u32,
    #[serde(deserialize_with = "duration")]
    wall_time: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CollectSection {
    args: Vec<String>,
}

impl Default for ResourcesSection {
    fn default() -> Self {
        Self {
            cpus: 1.0,
            memory: 512 << 20,
            tmp: 16 << 20,
            output: 64 << 20,
            output_files: 1000,
            pids: 64,
            wall_time: Duration::from_secs(600),
        }
    }
}

/// Why a job file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}\n  fix: {fix}")]
pub struct JobFileError {
    /// The line, from 1; 1 also for what concerns the whole file.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
}

impl JobFile {
    /// Reads a job file.
    ///
    /// # Errors
    /// With the line, the reason and the fix.
    pub fn parse(text: &str) -> Result<Self, JobFileError> {
        if text.len() > JOB_FILE_BYTES_MAX {
            return Err(at(text, None, "the job file is longer than 256 KiB".into(), FIX_LONG));
        }
        let file: Self = toml::from_str(text).map_err(|error| {
            let reason = error.message().trim().to_owned();
            let fix = fix_for(&reason);
            at(text, error.span(), reason, fix)
        })?;
        file.check(text)?;
        Ok(file)
    }

    /// References to local files, in the order image, module, dataset.
    #[must_use]
    pub fn references(&self) -> [Option<&Reference>; 3] {
        let dataset = self.inputs.as_ref().and_then(|inputs| inputs.dataset.as_ref());
        [self.program.image.as_ref(), self.program.module.as_ref(), dataset]
    }

    /// Whether the job needs a dataset, named in the file or when it is submitted.
    #[must_use]
    pub const fn needs_dataset(&self) -> bool {
        self.inputs.is_some()
    }

    /// The specification, with every reference resolved to content. A dataset comes with the
    /// number of its files.
    ///
    /// # Errors
    /// If the result breaks a rule of [`JobSpec::check`].
    pub fn resolve(
        self,
        project: ProjectId,
        submitted_at: Timestamp,
        image: Option<Cid>,
        module: Option<Cid>,
        dataset: Option<(Cid, u64)>,
    ) -> Result<JobSpec, SpecError> {
        let spec = self.into_spec(project, submitted_at, image, module, dataset);
        spec.check()?;
        Ok(spec)
    }

    /// Finds what breaks a rule before anything is added or sent, and says on which line.
    fn check(&self, text: &str) -> Result<(), JobFileError> {
        if self.sweep.is_some() == self.inputs.is_some() {
            let reason = "exactly one of [sweep] and [inputs] says how the job is split";
            return Err(at(text, None, reason.into(), FIX_SPLIT));
        }
        if let Some(key) = self.validation.misplaced() {
            let reason = format!("{key} belongs to another policy or comparison");
            let place = place_of(text, &SpecError::Validation { reason: key });
            return Err(at(text, place, reason, FIX_MISPLACED));
        }
        // Any content will do to check everything else.
        let somewhere = content::chunk_cid(b"");
        let image = self.program.image.as_ref().map(|_| somewhere);
        let module = self.program.module.as_ref().map(|_| somewhere);
        let nobody = ProjectId::from_multihash(
            multihash::Multihash::wrap(0, &[]).expect("an empty digest fits"),
        )
        .expect("an identity hash is a peer id");
        let spec = self.clone().into_spec(
            nobody,
            Timestamp::default(),
            image,
            module,
            Some((somewhere, 1)),
        );
        spec.check().map_err(|error| {
            let place = place_of(text, &error);
            at(text, place, error.to_string(), "change the value as the reason says")
        })
    }

    fn into_spec(
        self,
        project: ProjectId,
        submitted_at: Timestamp,
        image: Option<Cid>,
        module: Option<Cid>,
        dataset: Option<(Cid, u64)>,
    ) -> JobSpec {
        let work = match (self.sweep, self.inputs, dataset) {
            (None, Some(inputs), Some((dataset, files))) => {
                Work::Files { dataset, files, files_per_unit: inputs.files_per_unit }
            }
            (sweep, ..) => Work::Sweep(
                sweep
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(name, values)| SweepParameter { name, values: values.into() })
                    .collect(),
            ),
        };
        let r = self.resources;
        JobSpec {
            v: self.version,
            project,
            name: self.name,
            submitted_at,
            program: Program { image, module, args: self.program.args },
            work,
            limits: Limits {
                cpu_millis: (r.cpus * 1000.0).round() as u32,
                memory_bytes: r.memory,
                tmp_bytes: r.tmp,
                output_bytes: r.output,
                output_files: r.output_files,
                pids: r.pids,
                wall_ms: millis(r.wall_time),
            },
            validation: self.validation.into_rules(),
            collect: self.collect.map(|collect| Collect { args: collect.args }),
            stages: self.stage.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ValuesSection> for SweepValues {
    fn from(values: ValuesSection) -> Self {
        match values {
            ValuesSection::Range(RangeSection { from, to, step }) => Self::Range { from, to, step },
            ValuesSection::List(list) => Self::List(
                list.into_iter()
                    .map(|value| match value {
                        Value::Integer(integer) => integer.to_string(),
                        Value::Text(text) => text,
                    })
                    .collect(),
            ),
        }
    }
}

/// Why a text is neither a CID nor a local file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not pinned: it names neither content (a CID) nor a local file \
     (\"file:<path>\"), so volunteers could be given something else under the same name"
)]
pub struct UnpinnedError {
    text: String,
}

impl FromStr for Reference {
    type Err = UnpinnedError;

    fn from_str(text: &str) -> Result<Self, UnpinnedError> {
        if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Ok(Self::File(path.to_owned()));
        }
        content::parse(text).map(Self::Cid).map_err(|_| UnpinnedError { text: text.to_owned() })
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

const fn one() -> i64 {
    1
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| {
        serde::de::Error::custom(format!("{text:?} is not a size, for example \"256 MiB\""))
    })
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        serde::de::Error::custom(format!("{text:?} is not a duration, for example \"1h 30min\""))
    })
}

const FIX_LONG: &str = "put data into a dataset (dockercomp dataset add) and name it by its CID";
const FIX_MISPLACED: &str = "remove it, or choose the policy or comparison that it is for";
const FIX_SPLIT: &str = "write [sweep] for parameters or [inputs] for the files of a dataset";

/// What to do about an error of the TOML reader or of our own value readers.
fn fix_for(reason: &str) -> &'static str {
    const FIXES: [(&str, &str); 10] = [
        ("unknown field", "remove the key, or write one of the expected ones"),
        ("missing field", "add the missing key to this section"),
        ("is not a size", "write a number with a unit: KiB, MiB, GiB, kB, MB or GB"),
        ("is not a share", "write a number from 0 to 1, for example 0.001"),
        ("is not a tolerance", "write 0 or a positive number, for example 1e-6"),
        ("is not a duration", "write numbers with units: ms, s, min, h or days"),
        (
            "is not pinned",
            "add it once and use the CID that is printed (dockercomp image add, \
             dockercomp dataset add), or point to a local file with \"file:<path>\"",
        ),
        ("unknown variant", "write one of the expected values"),
        ("invalid type", "change the value to the expected type; sizes and durations are texts"),
        ("duplicate key", "keep the key only once"),
    ];
    FIXES
        .iter()
        .find(|(sign, _)| reason.contains(sign))
        .map_or("correct the TOML at this place", |(_, fix)| fix)
}

/// Where in the file the value stands that a rule refuses: the line that sets the key the
/// message begins with, or the section's heading.
fn place_of(text: &str, error: &SpecError) -> Option<Range<usize>> {
    let mut skip = 0;
    let key = match error {
        SpecError::Stage { number, .. } => {
            skip = *number;
            "[[stage]]"
        }
        SpecError::Version { .. } => "version",
        SpecError::Name => "name",
        SpecError::NoProgram => "[program]",
        SpecError::Args => "args",
        SpecError::UnknownParameter { arg, .. } => arg,
        SpecError::Sweep { .. } | SpecError::Units { .. } => "[sweep]",
        SpecError::FilesPerUnit => "files_per_unit",
        SpecError::Limits { field, .. } => field,
        SpecError::Validation { reason } => reason.split(' ').next().unwrap_or("[validation]"),
    };
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let code = line.split('#').next().unwrap_or_default();
        let indent = code.len() - code.trim_start().len();
        let is_key = code
            .trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| key.starts_with('[') || rest.trim_start().starts_with('='));
        if is_key && skip > 0 {
            skip -= 1;
        } else if is_key {
            return Some(start + indent..start + indent + key.len());
        }
        if let (SpecError::UnknownParameter { .. }, Some(place)) = (error, code.find(key)) {
            return Some(start + place..start + place + key.len());
        }
        start += line.len();
    }
    None
}

fn at(text: &str, span: Option<Range<usize>>, reason: String, fix: &str) -> JobFileError {
    let start = span.map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    JobFileError {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        reason,
        fix: fix.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Audited, Comparison, Decimal, Gather, Homogeneity, Policy, Share, Tolerance};

    const SWEEP: &str = r#"
version = 1
name = "tiles"

[program]
image = "file:build/tiles"
args = ["tile", "--row", "{row}"]

[sweep]
row = { from = 0, to = 7 }

[resources]
memory = "64 MiB"
wall_time = "2min"
"#;

    fn resolve(text: &str) -> JobSpec {
        let project = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".parse();
        let image = Some(content::chunk_cid(b"image"));
        JobFile::parse(text)
            .expect("a job file")
            .resolve(project.expect("a peer id"), Timestamp(1), image, None, None)
            .expect("a job")
    }

    #[test]
    fn human_units_become_numbers() {
        let spec = resolve(SWEEP);
        assert_eq!(spec.limits.memory_bytes, 64 << 20);
        assert_eq!(spec.limits.wall_ms, 120_000);
        assert_eq!(spec.validation.target_nresults, 2);
    }

    #[test]
    fn a_policy_is_chosen_with_its_constants() {
        assert_eq!(resolve(SWEEP).validation.policy, Policy::Audited(Audited::default()));
        let text = format!(
            "{SWEEP}\n[validation]\npolicy = \"audited\"\naccepted_error = 1e-4\nhold = \"2h\"\n\
             comparison = \"numeric\"\nrelative_tolerance = 1e-9\nhomogeneous = [\"os\", \"cpu\"]\n"
        );
        let rules = resolve(&text).validation;
        let policy = Audited {
            accepted_error: Share::from_millionths(100),
            hold_ms: 7_200_000,
            ..Audited::default()
        };
        assert_eq!(rules.policy, Policy::Audited(policy));
        let relative = Decimal { digits: 1, exponent: -9 };
        let tolerance = Tolerance { absolute: Decimal::default(), relative };
        assert_eq!(rules.comparison, Comparison::Numeric(tolerance));
        assert_eq!(rules.homogeneous, Homogeneity { os: true, cpu: true, executor: false });
    }

    #[test]
    fn specification_is_golden() {
        let spec = resolve(&format!("{SWEEP}\n[validation]\npolicy = \"fixed\"\n"));
        insta::assert_snapshot!(crate::codec::block(&spec).0, @"bafyr4ibvod3ksz2tebmmkmmc6fi7t6rltflofrxmekylfiplkcfidizpfq");
        insta::assert_snapshot!(hex::encode(crate::codec::encode(&spec)), @"a9617601646e616d656574696c657364776f726ba165737765657081a2646e616d6563726f776676616c756573a16572616e6765a362746f076466726f6d00647374657001666c696d697473a7647069647318406777616c6c5f6d731a0001d4c069746d705f62797465731a010000006a6370755f6d696c6c69731903e86c6d656d6f72795f62797465731a040000006c6f75747075745f62797465731a040000006c6f75747075745f66696c65731903e867636f6c6c656374f66770726f6772616da36461726773836474696c65652d2d726f77657b726f777d65696d616765d82a58250001551e200229ff7dec8a365f7300835d175494866d46e56fec330dad33cd3dc93df3c16d666d6f64756c65f66770726f6a6563745826002408011220cecc1507dc1ddd7295951c290888f095adb9044d1b73d696e6df065d683bd4fc6a76616c69646174696f6ea766706f6c6963796566697865646a6d696e5f71756f72756d026e64656c61795f626f756e645f6d731a0036ee806f7461726765745f6e726573756c747302716d61785f6572726f725f726573756c747303716d61785f746f74616c5f726573756c747308736d61785f737563636573735f726573756c7473066c7375626d69747465645f617401");
    }

    /// Each refused file says where, why, and what to do.
    #[test]
    fn refusals_name_line_reason_and_fix() {
        let cases = [
            ("memory = ", "memroy = ", 13, "unknown field `memroy`", "expected ones"),
            ("\"64 MiB\"", "\"64 MyB\"", 13, "is not a size", "with a unit"),
            ("\"64 MiB\"", "64", 13, "invalid type", "sizes and durations are texts"),
            ("\"2min\"", "\"2 minuets\"", 14, "is not a duration", "with units"),
            ("file:build/tiles", "alpine:3.19", 6, "is not pinned", "image add"),
            ("{row}", "{column}", 7, "not a parameter of [sweep]", "change the value"),
            ("to = 7", "to = -1", 9, "0 work units", "change the value"),
            ("\"64 MiB\"", "\"1 KiB\"", 13, "at least 8 MiB", "change the value"),
            ("version = 1", "version = 2", 2, "version 2", "change the value"),
            (
                "[resources]",
                "[validation]\nspot_checks = 0.1\n[resources]",
                13,
                "another policy",
                "remove",
            ),
            (
                "[resources]",
                "[validation]\npolicy = \"audited\"\naccepted_error = 2\n[resources]",
                14,
                "is not a share",
                "from 0 to 1",
            ),
            (
                "[resources]",
                "[validation]\npolicy = \"credibility\"\nsaboteurs = 0.95\n[resources]",
                14,
                "saboteurs must be",
                "change the value",
            ),
            (
                "[resources]",
                "[validation]\ncomparison = \"numeric\"\nrelative_tolerance = -1\n[resources]",
                14,
                "is not a tolerance",
                "1e-6",
            ),
            ("version = 1", "# version\nversion = 2", 3, "version 2", "change the value"),
        ];
        for (from, to, line, reason, fix) in cases {
            let text = SWEEP.replace(from, to);
            let error = JobFile::parse(&text).expect_err(to);
            assert_eq!(error.line, line, "{to}: {error}");
            assert!(error.reason.contains(reason), "{to}: {error}");
            assert!(error.fix.contains(fix), "{to}: {error}");
        }
    }

    const STAGES: &str = r#"
[[stage]]
name = "sum"
args = ["add"]
reduce = { fan_in = 3 }

[[stage]]
name = "draw"
args = ["draw"]
"#;

    /// Eight tiles, three and one sums, one drawing.
    #[test]
    fn stages_follow_each_other() {
        let spec = resolve(&format!("{SWEEP}{STAGES}"));
        assert_eq!((spec.first_units(), spec.units()), (8, 13));
        assert_eq!(spec.stages[0].gather, Gather::Tree { fan_in: 3 });
        assert_eq!(spec.stages[1].gather, Gather::Each);
    }

    /// Each refused stage is the one that the line points to.
    #[test]
    fn refused_stages_are_pointed_to() {
        let cases = [
            ("fan_in = 3", "fan_in = 1", 16, "fan_in must be 2 to 64"),
            ("fan_in = 3", "fan_in = 65", 16, "fan_in must be 2 to 64"),
            ("fan_in = 3", "fan = 3", 19, "unknown field `fan`"),
            ("[\"draw\"]", "[\"{row}\"]", 21, "of the first stage only"),
            ("\"draw\"\n", "\"\"\n", 21, "1 to 100 bytes"),
        ];
        for (from, to, line, reason) in cases {
            let text = format!("{SWEEP}{}", STAGES.replacen(from, to, 1));
            let error = JobFile::parse(&text).expect_err(to);
            assert_eq!(error.line, line, "{to}: {error}");
            assert!(error.reason.contains(reason), "{to}: {error}");
        }
    }

    #[test]
    fn a_job_is_split_in_exactly_one_way() {
        let both = format!("{SWEEP}\n[inputs]\nfiles_per_unit = 3\n");
        assert!(JobFile::parse(&both).expect_err("both").reason.contains("exactly one"));
    }
}
