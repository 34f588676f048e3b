package handler_test

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// walkList reads a list page by page, and calls between after each page with the rows so far.
func walkList[T any](t *testing.T, c caller, path string, between func(all []T)) []T {
	t.Helper()
	var all []T
	for path != "" {
		page := c.send(t, "GET", path, nil)
		all = append(all, decode[[]T](t, page, 200)...)
		path = ""
		if match := nextLink.FindStringSubmatch(page.header.Get("Link")); match != nil {
			path = match[1]
		}
		if between != nil {
			between(all)
		}
	}
	return all
}

// inSQL runs statements on the panel's database.
func (p *panel) inSQL(t *testing.T, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := dbtest.SQL(t, p.db).ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// manyAllocations makes 60 devices of two users and an organisation, on 3 tunnel servers, with 240 allocations in every
// state, and returns what an admin sees of them.
func manyAllocations(t *testing.T) (p *panel, admin, player caller, all []types.Allocation) {
	t.Helper()
	p = newPanel(t)
	admin, player = p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	guild := p.organisation(t, admin, player, "guild")
	p.inSQL(t,
		fmt.Sprintf(`INSERT INTO devices (name, kind, owner_id, organisation_id, created_at, expires_at, approved_at, platform, port_first, port_last)
			SELECT format((ARRAY['Rig %%s', 'haus_%%s', 'Würfel %%s'])[1 + n %% 3], n / 2), CASE WHEN n <= 3 THEN 'server' ELSE 'client' END,
				CASE WHEN n > 3 AND n %% 3 < 2 THEN (ARRAY[%d, %d])[1 + n %% 3] END, CASE WHEN n > 3 AND n %% 3 = 2 THEN %d END,
				now() - n / 2 * interval '1 minute', now(), now(), CASE WHEN n %% 2 = 0 THEN 'linux/amd64' END,
				CASE WHEN n <= 3 THEN 20000 ELSE 0 END, CASE WHEN n <= 3 THEN 20099 ELSE 0 END
			FROM generate_series(1, 63) n`, admin.user.ID, player.user.ID, guild.ID),
		`INSERT INTO replicas (id, renewed_at, lease_expires_at) VALUES
			('00000000-0000-0000-0000-000000000001', now(), now() + interval '1 hour'), ('00000000-0000-0000-0000-000000000002', now(), now() - interval '1 hour')`,
		`UPDATE devices d SET last_seen_at = created_at + interval '10 seconds', replica_id = CASE CASE WHEN kind = 'server' THEN 2 ELSE n % 4 END
				WHEN 0 THEN NULL WHEN 1 THEN '00000000-0000-0000-0000-000000000002'::uuid ELSE '00000000-0000-0000-0000-000000000001' END
			FROM (SELECT id, row_number() OVER (ORDER BY created_at, name) AS n FROM devices) AS o WHERE o.id = d.id AND (n % 7 > 0 OR d.kind = 'server')`,
		`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds,
				created_at, server_state, client_state, target, draining, drain_until, enabled, labels)
			SELECT d.id, s.id, p.protocol, 20000 + d.n, CASE WHEN d.n % 5 = 0 THEN '::1' ELSE '127.0.0.1' END, 25000 + d.n % 3,
				(ARRAY['Valheim', 'survival', 'SURVIVAL', '', 'a_b%c', 'Ärger', 'a:b'])[1 + d.n % 7], 'none', 60, now() - d.n % 9 * interval '1 second',
				(ARRAY['ready', 'ready', 'pending', 'failed'])[1 + p.i], (ARRAY['ready', 'ready', 'ready', 'pending', 'failed'])[1 + d.n % 5],
				(ARRAY['up', 'down', 'unknown'])[1 + d.n % 3], d.n % 11 = 0, CASE WHEN d.n % 11 = 0 THEN now() + interval '1 hour' END, d.n % 13 > 0,
				(ARRAY['{}', '{"game": "minecraft"}', '{"game": "luanti=5", "managed-by": "apply"}']::jsonb[])[1 + d.n % 3]
			FROM (SELECT id, row_number() OVER (ORDER BY created_at, name) AS n FROM devices WHERE kind = 'client') d
			JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM devices WHERE kind = 'server') s ON s.n = 1 + d.n % 3
			CROSS JOIN LATERAL (VALUES ('tcp', 0), ('udp', 1)) AS p (protocol, i)
			UNION ALL SELECT d.id, s.id, p.protocol, 30000 + d.n, 'game.lan', 7777, format('no %s', d.n), 'none', 60, now() - d.n * interval '1 hour',
				(ARRAY['ready', 'ready', 'pending', 'failed'])[1 + p.i], 'ready', 'up', false, NULL, true, '{"managed-by": ""}'
			FROM (SELECT id, row_number() OVER (ORDER BY created_at DESC, name DESC) AS n FROM devices WHERE kind = 'client') d
			JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM devices WHERE kind = 'server') s ON s.n = 1 + d.n % 3
			CROSS JOIN LATERAL (VALUES ('tcp', 2), ('udp', 3)) AS p (protocol, i)`)
	all = decode[[]types.Allocation](t, admin.send(t, "GET", allocations, nil), 200)
	if len(all) != 240 {
		t.Fatalf("%d allocations", len(all))
	}
	return p, admin, player, all
}

// compareAllocations are the orders of the list, without the order of ids.
var compareAllocations = map[string]func(a, b types.Allocation) int{
	"id":        func(a, b types.Allocation) int { return cmp.Compare(a.ID, b.ID) },
	"name":      func(a, b types.Allocation) int { return cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) },
	"port":      func(a, b types.Allocation) int { return cmp.Compare(a.Port, b.Port) },
	"createdAt": func(a, b types.Allocation) int { return a.CreatedAt.Compare(b.CreatedAt) },
}

// sorted returns rows in an order, and with the same key in that of their ids.
func sorted[T any](rows []T, sort string, keys map[string]func(a, b T) int, id func(T) string) []T {
	by, descending := strings.CutPrefix(sort, "-")
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b T) int {
		c := cmp.Or(keys[by](a, b), len(id(a))-len(id(b)), strings.Compare(id(a), id(b)))
		if descending {
			c = -c
		}
		return c
	})
	return rows
}

func allocationID(a types.Allocation) string { return strconv.FormatInt(a.ID, 10) }

func textIDs[T any](rows []T, id func(T) string) []string {
	list := make([]string, 0, len(rows))
	for _, row := range rows {
		list = append(list, id(row))
	}
	return list
}

func TestLists_OfAllocationsMatchTheirFiltersInEveryOrder(t *testing.T) {
	_, admin, player, all := manyAllocations(t)
	devices := map[uuid.UUID]types.Device{}
	for _, d := range decode[[]types.Device](t, admin.send(t, "GET", "/api/tunnel/devices", nil), 200) {
		devices[d.ID] = d
	}
	mine := decode[[]types.Allocation](t, player.send(t, "GET", allocations, nil), 200)
	if len(mine) != 160 {
		t.Fatalf("the player sees %d allocations", len(mine))
	}
	contains := func(text string) func(types.Allocation) bool {
		return func(a types.Allocation) bool {
			host := a.LocalHost
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			for _, in := range []string{a.Name, strconv.Itoa(a.Port), host + ":" + strconv.Itoa(a.LocalPort), devices[a.DeviceID].Name} {
				if strings.Contains(strings.ToLower(in), strings.ToLower(text)) {
					return true
				}
			}
			return false
		}
	}
	filters := map[string]func(types.Allocation) bool{"": func(types.Allocation) bool { return true }}
	for _, text := range []string{"valheim", "SURV", "_", "%", "Ärg", "[::1]:2500", "20017", "rig 1", "GAME.lan:77", "a:b", "nothing like it", `\`} {
		filters["q="+url.QueryEscape(text)] = contains(text)
	}
	for _, status := range []types.AllocationStatus{"pending", "listening", "draining", "failed", "offline", "paused"} {
		filters["status="+string(status)] = func(a types.Allocation) bool { return a.Status == status }
	}
	for _, target := range []types.TargetState{"up", "down", "unknown"} {
		filters["target="+string(target)] = func(a types.Allocation) bool { return a.Target == target }
	}
	owned := func(a types.Allocation) bool {
		owner, err := devices[a.DeviceID].OwnerID.Get()
		return err == nil && owner == player.user.ID
	}
	some := mine[len(mine)/2]
	ofGuild := all[slices.IndexFunc(all, func(a types.Allocation) bool { return !devices[a.DeviceID].OrganisationID.IsNull() && contains("a")(a) })].DeviceID
	for filter, of := range map[string]func(types.Allocation) bool{
		"protocol=udp":                         func(a types.Allocation) bool { return a.Protocol == "udp" },
		fmt.Sprintf("port=%d", some.Port):      func(a types.Allocation) bool { return a.Port == some.Port },
		"deviceId=" + some.DeviceID.String():   func(a types.Allocation) bool { return a.DeviceID == some.DeviceID },
		"serverId=" + some.ServerID.String():   func(a types.Allocation) bool { return a.ServerID == some.ServerID },
		fmt.Sprint("ownerId=", player.user.ID): owned,
		fmt.Sprint("ownerId=", admin.user.ID):  func(a types.Allocation) bool { return !owned(a) && devices[a.DeviceID].OrganisationID.IsNull() },
		"organisationId=1":                     func(a types.Allocation) bool { return !devices[a.DeviceID].OrganisationID.IsNull() },
		"organisationId=1&deviceId=" + ofGuild.String() + "&q=a": func(a types.Allocation) bool {
			return !devices[a.DeviceID].OrganisationID.IsNull() && a.DeviceID == ofGuild && contains("a")(a)
		},
		"status=failed&protocol=udp&q=no": func(a types.Allocation) bool {
			return a.Status == "failed" && a.Protocol == "udp" && contains("no")(a)
		},
		"label=game": func(a types.Allocation) bool { return a.Labels["game"] != "" },
		"label=game&label=" + url.QueryEscape("game=luanti=5"): func(a types.Allocation) bool { return a.Labels["game"] == "luanti=5" },
		"label=managed-by%3D&protocol=udp": func(a types.Allocation) bool {
			by, found := a.Labels["managed-by"]
			return found && by == "" && a.Protocol == "udp"
		},
		"label=game&label=nothing": func(types.Allocation) bool { return false },
	} {
		filters[filter] = of
	}
	sorts := []string{"id", "-id", "name", "-name", "port", "-port", "createdAt", "-createdAt"}
	round := 0
	for filter, matches := range filters {
		found := 0
		for _, c := range []struct {
			caller
			sees []types.Allocation
		}{{admin, all}, {player, mine}} {
			round++
			sort := sorts[round%len(sorts)]
			want := sorted(slices.DeleteFunc(slices.Clone(c.sees), func(a types.Allocation) bool { return !matches(a) }), sort, compareAllocations, allocationID)
			found += len(want)
			got := walkList[types.Allocation](t, c.caller, allocations+"?limit=40&sort="+sort+"&"+filter, nil)
			if !slices.Equal(textIDs(got, allocationID), textIDs(want, allocationID)) {
				t.Errorf("%q by %s: %d allocations %v, want %d: %v", filter, sort, len(got), textIDs(got, allocationID), len(want), textIDs(want, allocationID))
			}
		}
		if found == 0 && !strings.Contains(filter, "nothing") && filter != "q=%5C" {
			t.Errorf("%q matches nothing, and proves nothing", filter)
		}
	}
}

// TestLists_PagesStayWholeWhileRowsComeAndGo reads pages in every order, and after each page deletes its last row and
// another that has been read, and adds some: those that stay are each read once, in order.
func TestLists_PagesStayWholeWhileRowsComeAndGo(t *testing.T) {
	p, admin, _, _ := manyAllocations(t)
	for _, sort := range []string{"id", "-id", "name", "-name", "port", "-port", "createdAt", "-createdAt"} {
		before := decode[[]types.Allocation](t, admin.send(t, "GET", allocations, nil), 200)
		gone, port := map[int64]bool{}, 40000
		got := walkList(t, admin, allocations+"?limit=20&sort="+sort, func(read []types.Allocation) {
			last, other := read[len(read)-1].ID, read[len(read)/2].ID
			gone[last], gone[other] = true, true
			port++
			p.inSQL(t, fmt.Sprintf(`DELETE FROM allocations WHERE id IN (%d, %d)`, last, other),
				fmt.Sprintf(`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
					SELECT device_id, server_id, protocol, %d, local_host, local_port, 'new', 'none', 60 FROM allocations LIMIT 1`, port))
		})
		stayed := func(rows []types.Allocation) []string {
			known := map[int64]bool{}
			for _, a := range before {
				known[a.ID] = !gone[a.ID]
			}
			return textIDs(slices.DeleteFunc(slices.Clone(rows), func(a types.Allocation) bool { return !known[a.ID] }), allocationID)
		}
		if have, want := stayed(got), stayed(sorted(before, sort, compareAllocations, allocationID)); !slices.Equal(have, want) {
			t.Errorf("by %s: %v, want %v", sort, have, want)
		}
		p.inSQL(t, `DELETE FROM allocations WHERE name = 'new'`)
	}
}

var compareDevices = map[string]func(a, b types.Device) int{
	"createdAt": func(a, b types.Device) int { return a.CreatedAt.Compare(b.CreatedAt) },
	"name":      func(a, b types.Device) int { return cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) },
	"lastSeenAt": func(a, b types.Device) int {
		seen := func(d types.Device) time.Time {
			if d.Online {
				return time.Unix(1<<40, 0)
			}
			at, _ := d.LastSeenAt.Get()
			return at
		}
		return seen(a).Compare(seen(b))
	},
}

func TestLists_OfDevicesMatchTheirFiltersInEveryOrder(t *testing.T) {
	_, admin, player, _ := manyAllocations(t)
	sees := map[string][]types.Device{}
	callers := map[string]caller{"admin": admin, "player": player}
	for name, c := range callers {
		sees[name] = decode[[]types.Device](t, c.send(t, "GET", "/api/tunnel/devices", nil), 200)
	}
	filters := map[string]func(types.Device) bool{
		"":                 func(types.Device) bool { return true },
		"kind=client":      func(d types.Device) bool { return d.Kind == "client" },
		"online=true":      func(d types.Device) bool { return d.Online },
		"online=false":     func(d types.Device) bool { return !d.Online },
		"approved=true":    func(d types.Device) bool { return d.Approved },
		"approved=false":   func(d types.Device) bool { return !d.Approved },
		"organisationId=1": func(d types.Device) bool { return !d.OrganisationID.IsNull() },
		fmt.Sprint("ownerId=", player.user.ID): func(d types.Device) bool {
			owner, err := d.OwnerID.Get()
			return err == nil && owner == player.user.ID
		},
		"q=W%C3%BCRF": func(d types.Device) bool { return strings.Contains(d.Name, "Würfel") },
		"q=amd64&online=true": func(d types.Device) bool {
			platform, err := d.Platform.Get()
			return err == nil && platform == "linux/amd64" && d.Online
		},
	}
	for filter, matches := range filters {
		for i, sort := range []string{"createdAt", "-createdAt", "name", "-name", "lastSeenAt", "-lastSeenAt"} {
			for name, c := range callers {
				if (name == "admin") == (i%2 == 0) {
					continue // Each reads in half of the orders.
				}
				id := func(d types.Device) string { return d.ID.String() }
				want := sorted(slices.DeleteFunc(slices.Clone(sees[name]), func(d types.Device) bool { return !matches(d) }), sort, compareDevices, id)
				got := walkList[types.Device](t, c, "/api/tunnel/devices?limit=15&sort="+sort+"&"+filter, nil)
				if !slices.Equal(textIDs(got, id), textIDs(want, id)) {
					t.Errorf("%s: %q by %s: %d devices, want %d", name, filter, sort, len(got), len(want))
				}
			}
		}
	}
}

func TestLists_OfUsersAndOrganisationsMatchTheirFiltersInEveryOrder(t *testing.T) {
	p, admin, player, _ := manyAllocations(t)
	p.inSQL(t, `INSERT INTO users (email, password_hash, role, suspended, created_at)
			SELECT format('%sx%s@example.com', CASE WHEN n % 2 = 0 THEN 'B' ELSE 'b' END, n), '', 'user', n % 3 = 0, now() - n / 3 * interval '1 hour' FROM generate_series(1, 30) n`,
		`INSERT INTO organisations (name, created_at) SELECT format('%s %s', CASE WHEN n % 2 = 0 THEN 'Guild' ELSE 'clan' END, n / 2), now() - n / 3 * interval '1 hour'
			FROM generate_series(1, 30) n`,
		fmt.Sprintf(`INSERT INTO organisation_members (organisation_id, user_id, role) SELECT id, %d, 'member' FROM organisations WHERE id %% 3 = 0`, player.user.ID))
	users := decode[[]types.User](t, admin.send(t, "GET", "/api/users", nil), 200)
	userID := func(u types.User) string { return strconv.FormatInt(u.ID, 10) }
	byUser := map[string]func(a, b types.User) int{
		"email": func(a, b types.User) int {
			return cmp.Compare(strings.ToLower(string(a.Email)), strings.ToLower(string(b.Email)))
		},
		"createdAt": func(a, b types.User) int { return a.CreatedAt.Compare(b.CreatedAt) },
	}
	for filter, matches := range map[string]func(types.User) bool{
		"":     func(types.User) bool { return true },
		"q=X1": func(u types.User) bool { return strings.Contains(string(u.Email), "x1") },
		"search=bx2&suspended=true": func(u types.User) bool {
			return strings.HasPrefix(strings.ToLower(string(u.Email)), "bx2") && u.Suspended
		},
		"role=admin":                func(u types.User) bool { return u.Role == "admin" },
		"suspended=false&role=user": func(u types.User) bool { return !u.Suspended && u.Role == "user" },
	} {
		for _, sort := range []string{"email", "-email", "createdAt", "-createdAt"} {
			want := sorted(slices.DeleteFunc(slices.Clone(users), func(u types.User) bool { return !matches(u) }), sort, byUser, userID)
			got := walkList[types.User](t, admin, "/api/users?limit=7&sort="+sort+"&"+filter, nil)
			if !slices.Equal(textIDs(got, userID), textIDs(want, userID)) || len(want) == 0 {
				t.Errorf("%q by %s: %d users, want %d", filter, sort, len(got), len(want))
			}
		}
	}
	organisationID := func(o types.Organisation) string { return strconv.FormatInt(o.ID, 10) }
	byOrganisation := map[string]func(a, b types.Organisation) int{
		"name": func(a, b types.Organisation) int {
			return cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
		},
		"createdAt": func(a, b types.Organisation) int { return a.CreatedAt.Compare(b.CreatedAt) },
	}
	for _, c := range []caller{admin, player} {
		organisations := decode[[]types.Organisation](t, c.send(t, "GET", "/api/organisations", nil), 200)
		for filter, matches := range map[string]func(types.Organisation) bool{
			"":      func(types.Organisation) bool { return true },
			"q=LAN": func(o types.Organisation) bool { return strings.HasPrefix(o.Name, "clan") },
			"search=guild%20&q=1": func(o types.Organisation) bool {
				return strings.HasPrefix(o.Name, "Guild ") && strings.Contains(o.Name, "1")
			},
		} {
			for _, sort := range []string{"name", "-name", "createdAt", "-createdAt"} {
				want := sorted(slices.DeleteFunc(slices.Clone(organisations), func(o types.Organisation) bool { return !matches(o) }), sort, byOrganisation, organisationID)
				got := walkList[types.Organisation](t, c, "/api/organisations?limit=4&sort="+sort+"&"+filter, nil)
				if !slices.Equal(textIDs(got, organisationID), textIDs(want, organisationID)) || len(want) == 0 {
					t.Errorf("%q by %s: %d organisations, want %d", filter, sort, len(got), len(want))
				}
			}
		}
	}
}

func TestLists_RefuseWhatTheyDoNotKnow(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	for query, field := range map[string]string{
		"tunnel/allocations?sort=colour": "sort", "tunnel/allocations?status=fine": "status", "tunnel/allocations?target=left": "target",
		"tunnel/allocations?port=0": "port", "tunnel/allocations?q=": "q", "tunnel/allocations?ownerId=me": "ownerId",
		"tunnel/allocations?sort=name&after=1": "after", "tunnel/allocations?cursor=x": "cursor",
		"tunnel/allocations?sort=name&cursor=" + encode("port:1:2"):                    "cursor",
		"tunnel/allocations?sort=port&cursor=" + encode("port:1:70000"):                "cursor",
		"tunnel/allocations?sort=port&cursor=" + encode("port:"+uuid.NewString()+":7"): "cursor",
		"tunnel/allocations?sort=createdAt&cursor=" + encode("createdAt:1:infinity"):   "cursor",
		"tunnel/allocations?sort=createdAt&cursor=" + encode("createdAt:1:tomorrow"):   "cursor",
		"tunnel/devices?sort=port": "sort", "tunnel/devices?online=perhaps": "online", "tunnel/devices?kind=box": "kind",
		"tunnel/devices?sort=name&after=" + encode("name:1:x"):                                   "after",
		"tunnel/devices?sort=lastSeenAt&after=" + encode("lastSeenAt:"+uuid.NewString()+":soon"): "after",
		"users?sort=name": "sort", "users?role=king": "role", "users?sort=-email&after=" + encode("-email:x:y"): "after",
		"organisations?sort=id": "sort", "organisations?sort=-name&after=" + encode("name:1:y"): "after",
	} {
		wantField(t, admin.send(t, "GET", "/api/"+query, nil), field)
	}
}
