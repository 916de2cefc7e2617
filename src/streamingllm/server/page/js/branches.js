/** Finds where the branches of a session part, for the arrows at a message. */

/**
 * @typedef {import("./sessions_api.js").SessionInfo} SessionInfo
 * @typedef {{position: number, total: number, previous: string | null, next: string | null}} Arrows
 */

/**
 * Counts the first messages that two sessions of one family share.
 *
 * A session shares `num_shared_messages` with its parent. So two sessions share the least of these
 * numbers along the way from one to the other.
 *
 * @param {Map<string, SessionInfo>} family
 * @param {string} a
 * @param {string} b
 */
export function numShared(family, a, b) {
  const upFromA = pathUp(family, a);
  for (const [id, shared] of pathUp(family, b)) {
    const sharedWithA = upFromA.get(id);
    if (sharedWithA !== undefined) return Math.min(shared, sharedWithA);
  }
  return 0;
}

/**
 * Returns a session and its ancestors, each with the number of messages shared with it.
 *
 * @param {Map<string, SessionInfo>} family
 * @param {string} id
 */
function pathUp(family, id) {
  const path = new Map([[id, Infinity]]);
  let shared = Infinity;
  for (let at = family.get(id); at?.parent_id && !path.has(at.parent_id); ) {
    shared = Math.min(shared, at.num_shared_messages);
    path.set(at.parent_id, shared);
    at = family.get(at.parent_id);
  }
  return path;
}

/**
 * Counts ancestors: of two sessions of the same second the parent is the older one.
 *
 * @param {Map<string, SessionInfo>} family
 * @param {SessionInfo} member
 */
const depth = (family, member) => pathUp(family, member.id).size;

/**
 * Returns the arrows of each message at which another branch goes on differently.
 *
 * @param {SessionInfo} current
 * @param {SessionInfo[]} branches of the same family.
 * @returns {Map<number, Arrows>} by number of the message.
 */
export function branchArrows(current, branches) {
  const all = [current, ...branches.filter((branch) => branch.id !== current.id)];
  const family = new Map(all.map((member) => [member.id, member]));
  const partings = new Set(
    all
      .filter((other) => other !== current)
      .map((other) => [numShared(family, current.id, other.id), other.num_messages])
      .filter(([shared, length]) => shared > 0 && shared < Math.min(current.num_messages, length))
      .map(([shared]) => shared),
  );
  return new Map([...partings].map((number) => [number, arrowsAt(family, current, number)]));
}

/**
 * @param {Map<string, SessionInfo>} family
 * @param {SessionInfo} current
 * @param {number} number of a message at which others part from the current session.
 * @returns {Arrows}
 */
function arrowsAt(family, current, number) {
  const members = [...family.values()]
    .filter((member) => member.num_messages > number)
    .filter((member) => numShared(family, current.id, member.id) >= number)
    .sort((a, b) => a.created_at - b.created_at || depth(family, a) - depth(family, b));
  /** @type {SessionInfo[]} one for each version of the message, the oldest first. */
  const versions = [];
  for (const member of members) {
    const known = versions.findIndex((v) => numShared(family, v.id, member.id) > number);
    if (known < 0) versions.push(member);
    else if (member.id === current.id) versions[known] = member;
  }
  const position = versions.findIndex((version) => version.id === current.id);
  return {
    position,
    total: versions.length,
    previous: versions[position - 1]?.id ?? null,
    next: versions[position + 1]?.id ?? null,
  };
}
