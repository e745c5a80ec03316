//! The checkpoints of this federation: one station a member, and a few of other categories. Real places; what they ask
//! here is nobody's business.

use proto::{member::Member, terms::Category, venue::VenueId};

const VENUES: &[&str] = &[
    "44/station/guangzhou-south",
    "11/station/beijing-west",
    "00/other/service-hall",
    "12/station/tianjin",
    "13/station/shijiazhuang",
    "14/station/taiyuan-south",
    "15/station/hohhot-east",
    "21/station/shenyang-north",
    "22/station/changchun",
    "23/station/harbin-west",
    "31/station/shanghai-hongqiao",
    "32/station/nanjing-south",
    "33/station/hangzhou-east",
    "34/station/hefei-south",
    "35/station/fuzhou-south",
    "36/station/nanchang-west",
    "37/station/jinan-west",
    "41/station/zhengzhou-east",
    "42/station/wuhan",
    "43/station/changsha-south",
    "45/station/nanning-east",
    "46/station/haikou-east",
    "50/station/chongqing-north",
    "51/station/chengdu-east",
    "52/station/guiyang-north",
    "53/station/kunming-south",
    "54/station/lhasa",
    "61/station/xian-north",
    "62/station/lanzhou-west",
    "63/station/xining",
    "64/station/yinchuan",
    "65/station/urumqi",
    "66/station/shihezi",
    "44/hospital/zhongshan-first",
    "11/airport/capital",
    "31/hospital/ruijin",
    "51/park/renmin",
    "33/residential/west-lake",
];

/// All checkpoints of these members.
pub fn of(members: &[Member]) -> Vec<VenueId> {
    all().filter(|venue| members.contains(&venue.member())).collect()
}

/// Where a traveler of `home` is asked unless it is said: the first checkpoint of another member, of its own if alone.
pub fn away_from(home: Member, members: &[Member]) -> Option<VenueId> {
    let venues = of(members);
    venues.iter().find(|venue| venue.member() != home).or(venues.first()).cloned()
}

/// Where load tests ask: the first checkpoint there is.
pub fn for_load(members: &[Member]) -> Option<VenueId> {
    of(members).into_iter().next()
}

/// The categories a member's backend may speak for: all but the members' own workplaces, which hold certificates of
/// their own.
pub fn backend_categories() -> impl Iterator<Item = Category> {
    Category::ALL.iter().copied().filter(|category| *category != Category::Workplace)
}

fn all() -> impl Iterator<Item = VenueId> {
    VENUES.iter().map(|venue| venue.parse().expect("the table has venue ids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_a_checkpoint_and_the_documented_one_is_first() {
        for member in Member::all() {
            assert!(!of(&[member]).is_empty(), "{member}");
        }
        let members: Vec<_> = Member::all().collect();
        assert_eq!(for_load(&members).unwrap().to_string(), "44/station/guangzhou-south");
        let guangdong = "44".parse().unwrap();
        assert_eq!(away_from(guangdong, &members).unwrap().to_string(), "11/station/beijing-west");
        assert_eq!(away_from(guangdong, &[guangdong]).unwrap().member(), guangdong);
    }
}
