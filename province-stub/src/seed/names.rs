//! The names of seeded people: common surnames, and given names made up for this project from words for rivers, stars and
//! plants. Nobody is meant.

const SURNAMES: [&str; 64] = [
    "王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "胡", "朱", "高", "林", "何", "郭", "马",
    "罗", "梁", "宋", "郑", "谢", "韩", "唐", "冯", "于", "董", "萧", "程", "曹", "袁", "邓", "许", "傅", "沈", "曾",
    "彭", "吕", "苏", "卢", "蒋", "蔡", "贾", "丁", "魏", "薛", "叶", "阎", "余", "潘", "杜", "戴", "夏", "钟", "汪",
    "田", "任", "姜", "欧阳", "上官", "司徒", "诸葛",
];

const FIRST: [&str; 32] = [
    "星", "溪", "岚", "苇", "枫", "荷", "菱", "杉", "霖", "澜", "汐", "桐", "榆", "槐", "芷", "蓼", "苓", "荻", "葭",
    "莳", "泠", "淇", "湄", "漪", "昴", "毕", "参", "奎", "娄", "箕", "轸", "翼",
];

const SECOND: [&str; 32] = [
    "洲", "渡", "舟", "屿", "汀", "泊", "涧", "野", "禾", "穗", "苗", "蕊", "萝", "藤", "蔓", "蒲", "芦", "菖", "葵",
    "薇", "浦", "塘", "滩", "湾", "泉", "瀑", "潭", "沚", "渚", "沼", "潆", "泽",
];

/// A name, by a number.
pub(super) fn name(number: u64) -> String {
    let pick = |list: &[&'static str], number: u64| list[(number % list.len() as u64) as usize];
    [pick(&SURNAMES, number), pick(&FIRST, number >> 8), pick(&SECOND, number >> 16)].concat()
}

/// Whether a name is of the list.
#[cfg(test)]
pub(super) fn is_listed(name: &str) -> bool {
    SURNAMES
        .iter()
        .filter_map(|surname| name.strip_prefix(surname))
        .any(|given| FIRST.iter().filter_map(|first| given.strip_prefix(first)).any(|second| SECOND.contains(&second)))
}
