//go:build linux

package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	openapi_types "github.com/oapi-codegen/runtime/types"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// wide marks a list in which little matches, so that everybody's rows are looked at.
const wide = "wide "

const (
	// listRate is how many pages are asked for in a second, of all lists together.
	listRate = 50
	// listTime is how long that goes on, if there are devices enough.
	listTime = 120 * time.Second
	// listLimit is how long a page is.
	listLimit = "limit=100"
	// The limits of a page, from when it is due until it has been read.
	listMedian, listP99 = 20 * time.Millisecond, 80 * time.Millisecond
	// wideMedian and wideP99 are those of a page that has to look at each of everybody's rows.
	wideMedian, wideP99 = 150 * time.Millisecond, 400 * time.Millisecond
)

// TestLists_ArePromptForTenantsAndAdmins fills a panel with, for each device that is asked for, 10 devices,
// 40 allocations, 4 users, an organisation and 200 entries of the audit trail, one organisation of which has
// a twentieth of everything. It walks through the pages of every list as an admin, as an admin of that
// organisation, as somebody with a few devices and by an API key.
func TestLists_ArePromptForTenantsAndAdmins(t *testing.T) {
	database := startPostgres(t)
	panel := newReplica(t, database)
	panel.start(t)
	admin := logIn(t, panel.url)
	populate(t, database, devices(t))

	callers := map[string]string{"admin": admin}
	for _, name := range []string{"manager", "player"} {
		login, err := api(t, panel.url, "").LoginWithResponse(t.Context(),
			types.LoginRequest{Email: openapi_types.Email(name + "@example.org"), Password: adminPassword})
		check(t, err)
		if login.JSON200 == nil {
			t.Fatalf("log in as %s: %s", name, login.Body)
		}
		callers[name] = login.JSON200.Token
	}
	key, err := api(t, panel.url, callers["player"]).CreateAPIKeyWithResponse(t.Context(),
		types.APIKeyCreate{Name: "bot", Scopes: []types.APIKeyScope{types.ScopeRead}})
	check(t, err)
	if key.JSON201 == nil {
		t.Fatalf("create a key: %s", key.Body)
	}
	callers["key"] = key.JSON201.Key

	organisation := int(database.numbers(`SELECT min(id) FROM organisations`)[0])
	user := int(database.numbers(`SELECT id FROM users WHERE email = 'player@example.org'`)[0])
	var walks []*walk
	for _, list := range lists(user, organisation) {
		list, isWide := strings.CutPrefix(list, wide)
		caller, first, _ := strings.Cut(list, " ")
		if strings.Contains(first, "?") {
			first += "&" + listLimit
		} else {
			first += "?" + listLimit
		}
		walks = append(walks, &walk{name: list, base: panel.url, first: first, token: callers[caller], wide: isWide})
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	defer transport.CloseIdleConnections()
	group, ctx := errgroup.WithContext(t.Context())
	started := time.Now()
	end := started.Add(min(listTime, time.Duration(devices(t))*time.Second/40))
	for i, w := range walks {
		group.Go(func() error {
			offset := time.Duration(i) * time.Second / listRate
			period := time.Duration(len(walks)) * time.Second / listRate
			return w.run(ctx, &http.Client{Transport: transport}, started.Add(offset), period, end)
		})
	}
	check(t, group.Wait())
	for _, w := range walks {
		w.check(t)
	}
}

// lists are who asks for which list. user has a few devices, and organisation many.
func lists(user, organisation int) []string {
	return []string{
		"admin /api/tunnel/devices", "admin /api/tunnel/allocations",
		"admin /api/users", "admin /api/users?search=user12", "admin /api/organisations", "admin /api/organisations?search=guild1",
		fmt.Sprintf("admin /api/organisations/%d/members", organisation),
		"admin /api/audit", "admin /api/audit?action=device", fmt.Sprintf("admin /api/audit?userId=%d", user),
		"manager /api/tunnel/devices", "manager /api/tunnel/allocations", "manager /api/organisations",
		"manager /api/audit", fmt.Sprintf("manager /api/audit?organisationId=%d", organisation),
		fmt.Sprintf("manager /api/organisations/%d/members", organisation),
		"player /api/tunnel/devices", "player /api/tunnel/allocations", "player /api/account/sessions", "player /api/audit",
		"key /api/tunnel/allocations",
		fmt.Sprintf("admin /api/tunnel/allocations?ownerId=%d", user), fmt.Sprintf("admin /api/tunnel/devices?ownerId=%d", user),
		fmt.Sprintf("admin /api/tunnel/allocations?organisationId=%d", organisation),
		"admin /api/tunnel/allocations?sort=name", "admin /api/tunnel/allocations?sort=-port", "admin /api/tunnel/allocations?sort=createdAt",
		"admin /api/tunnel/allocations?status=offline", "admin /api/tunnel/allocations?status=paused", "admin /api/tunnel/allocations?status=draining",
		"admin /api/tunnel/allocations?protocol=udp", "admin /api/tunnel/allocations?q=25565", "admin /api/tunnel/devices?sort=name",
		wide + "admin /api/tunnel/allocations?status=failed", wide + "admin /api/tunnel/allocations?status=listening",
		wide + "admin /api/tunnel/allocations?q=nowhere", wide + "admin /api/tunnel/devices?q=nowhere",
		wide + "admin /api/tunnel/devices?sort=-lastSeenAt",
		"manager /api/tunnel/allocations?sort=name", "manager /api/tunnel/allocations?q=nowhere",
		"manager /api/tunnel/allocations?status=failed", "manager /api/tunnel/devices?q=nowhere",
		"player /api/tunnel/allocations?sort=name", "player /api/tunnel/allocations?q=nowhere", "player /api/tunnel/allocations?status=offline",
	}
}

// populate fills the database, without an entry of the audit trail for each row.
func populate(t *testing.T, database *postgres, n int) {
	t.Helper()
	_, err := database.Query(t.Context(), strings.NewReplacer("$devices", fmt.Sprint(10*n), "$users", fmt.Sprint(4*n),
		"$organisations", fmt.Sprint(n), "$entries", fmt.Sprint(200*n), "$admin", cluster.AdminEmail).Replace(`
		SET session_replication_role = replica;
		INSERT INTO users (email, password_hash, role)
			SELECT format('user%s@example.com', n), '', 'user' FROM generate_series(1, $users) n
			UNION ALL SELECT name || '@example.org', password_hash, 'user'
			FROM users, (VALUES ('manager'), ('player')) AS names (name) WHERE email = '$admin';
		INSERT INTO organisations (name) SELECT format('guild%s', n) FROM generate_series(1, $organisations) n;
		INSERT INTO organisation_members (organisation_id, user_id, role)
			SELECT o.first + CASE WHEN n % 20 = 0 THEN 0 ELSE n % $organisations END, id, CASE WHEN n % 4 = 0 THEN 'owner' ELSE 'member' END
			FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM users) AS u, (SELECT min(id) AS first FROM organisations) AS o
			UNION ALL SELECT o.first, id, 'admin' FROM users, (SELECT min(id) AS first FROM organisations) AS o
			WHERE email = 'manager@example.org' ON CONFLICT DO NOTHING;
		UPDATE organisation_members SET role = 'admin' FROM users u WHERE u.id = user_id AND u.email = 'manager@example.org';
		INSERT INTO devices (name, kind, owner_id, organisation_id, created_at, expires_at, approved_at)
			SELECT 'home', CASE WHEN n <= 20 THEN 'server' ELSE 'client' END,
				CASE WHEN n % 2 = 0 THEN CASE WHEN n <= 30 THEN player ELSE u.first + n % $users END END,
				CASE WHEN n % 2 = 1 THEN o.first + CASE WHEN n % 20 = 1 THEN 0 ELSE n % $organisations END END,
				now() - n * interval '1 second', now(), now()
			FROM generate_series(1, $devices) n, (SELECT min(id) AS first FROM organisations) AS o,
				(SELECT min(id) AS first, max(id) FILTER (WHERE email = 'player@example.org') AS player FROM users) AS u;
		INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
			SELECT d.id, s.id, p.protocol, p.port, 'localhost', 25565, '', 'none', 60
			FROM (SELECT id, row_number() OVER (ORDER BY created_at DESC) AS n FROM devices WHERE kind = 'client') AS d
			JOIN (SELECT id, row_number() OVER (ORDER BY created_at DESC) AS n FROM devices WHERE kind = 'server') AS s ON s.n = 1 + d.n % 20
			CROSS JOIN LATERAL (VALUES ('tcp', 10000 + d.n / 20), ('udp', 10000 + d.n / 20), ('tcp', 30000 + d.n / 20), ('udp', 30000 + d.n / 20))
				AS p (protocol, port);
		INSERT INTO audit_log (at, actor_kind, actor_id, actor_name, action, target_kind, target_id, target_name, user_id, organisation_id)
			SELECT now() - e.n * interval '1 second', 'user', coalesce(d.owner_id::text, ''), 'ada', CASE WHEN e.n % 2 = 0 THEN 'device.create' ELSE 'allocation.update' END,
				'device', d.id::text, d.name, d.owner_id, d.organisation_id
			FROM generate_series(1, $entries) AS e (n)
			JOIN (SELECT *, row_number() OVER (ORDER BY created_at) AS n FROM devices) AS d ON d.n = 1 + e.n % $devices;
		`))
	check(t, err)
	_, err = database.Query(t.Context(), `VACUUM ANALYZE`) // As autovacuum does soon.
	check(t, err)
}

// walk asks for the pages of a list, one after another and again from the first.
type walk struct {
	name, base, first, token string
	wide                     bool
	took                     []time.Duration
	pages                    int // The longest way to the end, or the pages so far.
}

// run asks for a page at each period from first to end.
func (w *walk) run(ctx context.Context, c *http.Client, first time.Time, period time.Duration, end time.Time) error {
	next, page := w.first, 0
	for due := first; due.Before(end); due = due.Add(period) {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return ctx.Err()
		}
		after, err := w.get(ctx, c, next)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", w.name, next, err)
		}
		w.took = append(w.took, time.Since(due))
		page++
		w.pages = max(w.pages, page)
		if next = after; next == "" {
			next, page = w.first, 0
		}
	}
	return nil
}

var nextLink = regexp.MustCompile(`<([^>]+)>; rel="next"`)

// matchesNothing matches the lists in which there is nothing.
var matchesNothing = regexp.MustCompile(`q=nowhere|status=(failed|listening|paused|draining)`)

// get reads a page, and returns where the next one is, or nothing.
func (w *walk) get(ctx context.Context, c *http.Client, path string) (string, error) {
	base, err := url.Parse(w.base)
	if err != nil {
		return "", err
	}
	address, err := base.Parse(path)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK || (len(body) < 10) != matchesNothing.MatchString(path) {
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	if link := nextLink.FindStringSubmatch(resp.Header.Get("Link")); link != nil {
		return link[1], nil
	}
	return "", nil
}

// check reports the times of a list's pages, and fails if they are too long.
func (w *walk) check(t *testing.T) {
	t.Helper()
	slices.Sort(w.took)
	median, p99 := w.took[len(w.took)/2], w.took[len(w.took)*99/100]
	t.Logf("%-50s %3d pages, median %5.1f ms, p99 %5.1f ms, worst %5.1f ms of %d", w.name, w.pages,
		milliseconds(median), milliseconds(p99), milliseconds(w.took[len(w.took)-1]), len(w.took))
	maxMedian, maxP99 := listMedian, listP99
	if w.wide {
		maxMedian, maxP99 = wideMedian, wideP99
	}
	// Of few pages, p99 is the worst, which may be that of the machine.
	if median > maxMedian || len(w.took) >= 100 && p99 > maxP99 {
		t.Errorf("%s: the median is %v and p99 %v, want at most %v and %v", w.name, median, p99, maxMedian, maxP99)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
