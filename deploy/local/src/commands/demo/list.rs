//! A traveler's list of who asked for them, as people read it: Chinese first, English beside.

use std::time::Duration;

use proto::{
    contract::{
        recognition::{Outcome, Source},
        traveler::Access,
        types,
    },
    member::Member,
    refusal::{Reason, reason_name},
    terms::{Category, Purpose, Scope},
    time::UnixTime,
    venue::VenueId,
};

use crate::{commands::traveler, phone::Phone, say};

/// China has one time, eight hours before UTC.
const BEIJING: Duration = Duration::from_secs(8 * 3600);

/// In Chinese and in English.
type Words = (&'static str, &'static str);

/// Prints the list of the traveler with this phone.
pub(super) fn print(home: Member, phone: &Phone, accesses: &[Access], json: bool) {
    if json {
        accesses.iter().for_each(|access| say!("{}", line_of_json(access)));
        return;
    }
    let (profile, count) = (home.profile(), accesses.len());
    say!("");
    say!("{}持码人在手机上看到：谁查询过我（共 {count} 次，最近的在前，北京时间）", profile.name_zh);
    say!("On a traveler's phone of {}: who asked for me ({count} times, newest first, Beijing time)", profile.name_en);
    for access in accesses {
        let [zh, en] = lines(access, phone);
        say!("{}  {zh}\n{:19}  {en}", time(access), "");
    }
    say!("");
}

fn lines(access: &Access, phone: &Phone) -> [String; 2] {
    if !access.operator_reason.is_empty() {
        return looked(access);
    }
    let category = access.venue.parse().ok().map(|venue: VenueId| category(venue.category()));
    let ((place, place_en), (why, why_en)) = (category.unwrap_or(("其他", "other")), purpose(access));
    let (on, on_en) = shown_on(access, phone);
    let (told, told_en) = told(access);
    let Access { venue, caller, staff_id, .. } = access;
    let staff = if staff_id.is_empty() { String::new() } else { format!("，工作人员 {staff_id}") };
    // A venue that asks for itself need not be named twice.
    let by = match venue.split_once('/') {
        Some((member, rest)) if *caller == format!("{member}/venue/{rest}") => staff,
        _ => format!("，由 {caller} 查询{staff}"),
    };
    [
        format!("{place}（{venue}{by}），目的：{why}，{on}。{told}"),
        format!("{place_en}, for {why_en}, {on_en}. {told_en}"),
    ]
}

/// It was no venue: somebody on the member's own staff looked, and the traveler reads who and what for.
fn looked(access: &Access) -> [String; 2] {
    let Access { caller, operator_reason, .. } = access;
    [
        format!("归属省工作人员（{caller}）查看了健康码及赋码依据，事由：{operator_reason}"),
        format!("Staff of the home province ({caller}) looked at the code and why it is so. Reason: {operator_reason}"),
    ]
}

fn time(access: &Access) -> String {
    let seconds = access.time.map_or(0, |time| u64::try_from(time.seconds).unwrap_or(0));
    UnixTime::from_secs(seconds).plus(BEIJING).to_string().replace('T', " ").trim_end_matches('Z').to_owned()
}

fn category(category: Category) -> Words {
    match category {
        Category::Checkpoint => ("交通卡口", "road checkpoint"),
        Category::Residential => ("居住小区", "residential area"),
        Category::Station => ("车站", "station"),
        Category::Airport => ("机场", "airport"),
        Category::Port => ("港口", "port"),
        Category::Terminal => ("客运站", "coach terminal"),
        Category::Ferry => ("轮渡码头", "ferry"),
        Category::Hospital => ("医院", "hospital"),
        Category::Park => ("公园", "park"),
        Category::School => ("学校", "school"),
        Category::Workplace => ("单位", "workplace"),
        Category::Other => ("其他", "other place"),
    }
}

fn purpose(access: &Access) -> Words {
    match u64::try_from(access.purpose).ok().and_then(|number| Purpose::from_number(number).ok()) {
        Some(Purpose::Entry) => ("通行", "entry"),
        Some(Purpose::Travel) => ("乘坐交通工具", "travel"),
        Some(Purpose::Medical) => ("就医", "medical care"),
        Some(Purpose::School) => ("上学", "school"),
        Some(Purpose::Work) => ("上班", "work"),
        Some(Purpose::Lodging) => ("住宿", "lodging"),
        None => ("不明", "no known purpose"),
    }
}

fn shown_on(access: &Access, phone: &Phone) -> Words {
    match access.kind() {
        types::ConsentKind::Own if access.device_id == phone.id() => ("本机亮码", "on this phone"),
        types::ConsentKind::Own => ("本人另一部手机亮码", "on another phone of theirs"),
        types::ConsentKind::Dependent => ("同行人手机亮码", "on a companion's phone"),
        types::ConsentKind::Paper => ("出示纸质码", "on paper"),
        types::ConsentKind::Assisted => ("工作人员代查", "looked up by staff"),
        types::ConsentKind::Unspecified => ("方式不明", "in no known way"),
    }
}

/// What the venue learned, and from where; or why it learned nothing.
fn told(access: &Access) -> (String, String) {
    let nothing = |(zh, en): Words| (format!("未获得任何信息：{zh}"), format!("Learned nothing: {en}"));
    if !access.refusal_reason.is_empty() {
        return match refusal(&access.refusal_reason) {
            Some(words) => nothing(words),
            None => {
                let reason = &access.refusal_reason;
                (format!("未获得任何信息：{reason}"), format!("Learned nothing: {reason}"))
            }
        };
    }
    match access.outcome() {
        Outcome::Status | Outcome::Undetermined => {
            let ((zh, en), (from, from_en)) = (disclosed(access.disclosed_scope), source(access.source()));
            (format!("获知：{zh}（{from}）"), format!("Learned: {en} ({from_en})"))
        }
        Outcome::UnknownTraveler => nothing(("归属省没有相应的健康码", "home has no code for this")),
        Outcome::Unsubstantiated => (
            "未获得健康码状态，仅得知赋码机构：赋码没有国家规定的依据".to_owned(),
            "Did not learn the status, only which authority assigned it: the code has no basis in national rules"
                .to_owned(),
        ),
        Outcome::HomeUnreachable => nothing(("暂时联系不上归属省", "home could not be reached")),
        Outcome::Unspecified => nothing(("结果不明", "no known outcome")),
    }
}

fn disclosed(bits: u32) -> (String, String) {
    let known = [
        (Scope::LEVEL, ("健康码状态", "status")),
        (Scope::ASSIGNMENT, ("赋码时间和依据", "when and why it was assigned")),
        (Scope::TESTS, ("核酸检测", "tests")),
        (Scope::VACCINATION, ("疫苗接种", "vaccination")),
        (Scope::RISK_AREAS, ("风险地区旅居", "risk areas")),
        (Scope::IDENTITY_HINT, ("脱敏姓名和证件尾号", "masked name and document tail")),
    ];
    let told = known.iter().filter(|(scope, _)| bits & u32::from(scope.bits()) != 0);
    let (zh, en): (Vec<_>, Vec<_>) = told.map(|(_, words)| *words).unzip();
    (zh.join("、"), en.join(", "))
}

fn source(source: Source) -> Words {
    match source {
        Source::Home => ("来自归属省", "from home"),
        Source::Cache => ("来自网关缓存", "from the gateway's cache"),
        Source::LastKnown => ("归属省断联前的状态", "the last known, home was not reached"),
        Source::Unspecified => ("来源不明", "from nowhere known"),
    }
}

fn refusal(reason: &str) -> Option<Words> {
    let words: [(Reason, Words); 16] = [
        (Reason::PurposeNotConsented, ("本人没有同意这个用途", "not consented to for this purpose")),
        (Reason::AudienceMismatch, ("本人没有同意在此处使用", "not consented to for this place")),
        (Reason::ScopeNotGranted, ("要求的内容超出许可", "more was asked than is granted")),
        (Reason::PurposeNotAdmitted, ("政策不允许这类场所这样查询", "such places may not ask for this")),
        (Reason::ConsentRevoked, ("同意已经撤回", "the consent was revoked")),
        (Reason::Expired, ("出示的码已过期", "what was shown had expired")),
        (Reason::NotYetValid, ("出示的码尚未生效", "what was shown was not valid yet")),
        (Reason::DeviceClockOff, ("手机时间不准", "the phone's clock was off")),
        (Reason::SignatureInvalid, ("不是这部手机出示的", "it was not shown by this phone")),
        (Reason::ProofMissing, ("截图或残缺的码", "a screenshot, or part of a code")),
        (Reason::ProofOfOtherVenue, ("码是在别的场所出示的", "it was shown to another venue")),
        (Reason::VenueBindingRequired, ("需要先扫场所码", "the venue's code has to be scanned first")),
        (Reason::AlreadyRedeemed, ("码已在别处用过", "it was used elsewhere")),
        (Reason::DeadlineExceeded, ("查询超时", "it took too long")),
        (Reason::RecordUnavailable, ("无法记录这次查询", "it could not be put on record")),
        (Reason::Overloaded, ("系统繁忙", "too busy")),
    ];
    words.into_iter().find(|(known, _)| reason_name(*known) == reason).map(|(_, words)| words)
}

fn line_of_json(access: &Access) -> serde_json::Value {
    serde_json::json!({ "access": {
        "time": access.time.map(|time| time.seconds),
        "venue": access.venue,
        "caller": access.caller,
        "staff_id": access.staff_id,
        "purpose": access.purpose().as_str_name(),
        "disclosed_scope": access.disclosed_scope,
        "outcome": access.outcome().as_str_name(),
        "source": access.source().as_str_name(),
        "refusal_reason": access.refusal_reason,
        "kind": access.kind().as_str_name(),
        "exchange_id": traveler::hex(&access.exchange_id),
        "log": traveler::hex(&access.log),
        "log_index": access.log_index,
        "operator_reason": access.operator_reason,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_of_the_members_own_staff_says_who_and_what_for() {
        let look = Access {
            caller: "44/operator/li".into(),
            operator_reason: "12345 来电复核".into(),
            time: Some(UnixTime::from_secs(1_800_000_000).to_protobuf()),
            ..Access::default()
        };
        let [zh, en] = looked(&look);
        for line in [&zh, &en] {
            assert!(line.contains("44/operator/li") && line.contains("12345 来电复核"), "{line}");
        }
        assert!(zh.contains("归属省工作人员") && en.contains("Staff of the home province"), "{zh} {en}");
        assert_eq!(line_of_json(&look)["access"]["operator_reason"], "12345 来电复核");
        assert_eq!(time(&look), "2027-01-15 16:00:00");
    }

    #[test]
    fn what_was_said_of_a_code_without_basis_is_not_nothing() {
        let unsubstantiated = Access { outcome: Outcome::Unsubstantiated.into(), ..Access::default() };
        let (zh, en) = told(&unsubstantiated);
        assert!(zh.contains("仅得知赋码机构") && en.contains("only which authority"), "{zh} {en}");
        let unknown = Access { outcome: Outcome::UnknownTraveler.into(), ..Access::default() };
        let (zh, en) = told(&unknown);
        assert!(zh.starts_with("未获得任何信息") && en.starts_with("Learned nothing"), "{zh} {en}");
    }
}
