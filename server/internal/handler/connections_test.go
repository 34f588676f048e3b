package handler_test

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// player connects a player to an allocation on a tunnel server that was just connected, and returns the id of the
// connection.
func (w *world) player(t *testing.T, server uuid.UUID, allocation string) string {
	t.Helper()
	return connectPlayer(t, w.exec, server, allocation, "203.0.113.60")
}

func connectPlayer(t *testing.T, exec func(t *testing.T, query string, args ...any), server uuid.UUID, allocation, from string) string {
	t.Helper()
	number := uuid.New().ID()
	exec(t, `UPDATE devices SET last_seen_at = now() WHERE id = $1`, server)
	exec(t, `INSERT INTO connections (server_id, number, allocation_id, generation, source, source_port, since, download_bytes, upload_bytes, player_rtt)
		SELECT id, $2, $3, generation, $4, 51820, now(), 7, 8, 1.5 FROM devices WHERE id = $1`, server, int64(number), allocation, from)
	return fmt.Sprintf("%s-%016x", hex.EncodeToString(server[:]), number)
}

// connectionAnswers adds the errors about connections, to the one allocation that there is.
func connectionAnswers(t *testing.T, p *panel, answers map[string]answer, owner caller, server db.Device) {
	t.Helper()
	sql := dbtest.SQL(t, p.db)
	exec := func(t *testing.T, query string, args ...any) {
		t.Helper()
		if _, err := sql.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	var allocation string
	if err := sql.QueryRowContext(t.Context(), `SELECT id::text FROM allocations`).Scan(&allocation); err != nil {
		t.Fatal(err)
	}
	exec(t, `INSERT INTO kept_out (allocation_id, source, until) SELECT $1, ('10.0.' || n / 256 || '.' || n % 256)::cidr, now() + interval '1 hour'
		FROM generate_series(1, 1000) AS n`, allocation)
	id := connectPlayer(t, exec, server.ID, allocation, "203.0.113.60")
	answers["TooManyKeptOut"] = owner.send(t, "DELETE", "/api/tunnel/connections/"+id+"?keepOutSeconds=60", nil)
	exec(t, `DELETE FROM connections`)
	answers["ConnectionNotFound"] = owner.send(t, "GET", "/api/tunnel/connections/"+id, nil)
}

func TestConnections_AreListedInPagesAndByFilters(t *testing.T) {
	w := newWorld(t)
	to := w.newTarget(false)
	allocation, server := to.placeholder(t, w, "{allocation}"), to.tunnelServer(t, w).ID
	owner := w.session(t, w.owner)
	var ids []string
	for i := range 5 {
		ids = append(ids, connectPlayer(t, w.exec, server, allocation, fmt.Sprintf("198.51.100.%d", i)))
	}
	slices.Reverse(ids) // Newest first.
	var got []string
	path := "/api/tunnel/connections?limit=2&sourceAddress=198.51.100.0%2F24&protocol=tcp&serverId=" + server.String()
	for path != "" {
		a := owner.send(t, "GET", path, nil)
		for _, c := range decode[[]types.Connection](t, a, 200) {
			got = append(got, c.ID)
		}
		path = strings.TrimSuffix(strings.TrimPrefix(a.header.Get("Link"), "<"), `>; rel="next"`)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("pages of %v, want %v", got, ids)
	}
	for query, want := range map[string]int{
		"": 5, "sourceAddress=198.51.100.3": 1, "sourceAddress=2001:db8::/32": 0, "protocol=udp": 0, "allocationId=" + allocation: 5,
		"allocationId=999999": 0, "deviceId=" + to.client(t, w).ID.String(): 5, "deviceId=" + uuid.NewString(): 0,
		"organisationId=" + strconv.FormatInt(w.organisation, 10): 0,
	} {
		if rows := decode[[]types.Connection](t, owner.send(t, "GET", "/api/tunnel/connections?"+query, nil), 200); len(rows) != want {
			t.Errorf("%q lists %d, want %d", query, len(rows), want)
		}
	}
	c := decode[types.Connection](t, owner.send(t, "GET", "/api/tunnel/connections/"+ids[0], nil), 200)
	if trip, err := c.PlayerRoundTripMs.Get(); c.SourceAddress != "198.51.100.4" || c.SourcePort != 51820 || c.DownloadBytes != 7 ||
		c.ServerID != server || err != nil || trip != 1.5 || !c.TunnelRoundTripMs.IsNull() {
		t.Errorf("the newest is %+v", c)
	}
	for _, after := range []string{"AAAA", url.QueryEscape(ids[0])} {
		decode[types.Problem](t, owner.send(t, "GET", "/api/tunnel/connections?after="+after, nil), 400)
	}
}

func TestConnections_KeepTheirSourceOutUntilItIsReadmitted(t *testing.T) {
	w := newWorld(t)
	to := w.newTarget(false)
	allocation := to.placeholder(t, w, "{allocation}")
	owner := w.session(t, w.owner)
	id := connectPlayer(t, w.exec, to.tunnelServer(t, w).ID, allocation, "2001:db8:0:7::9")
	for range 2 {
		decode[types.Success](t, owner.send(t, "DELETE", "/api/tunnel/connections/"+id+"?keepOutSeconds=60", nil), 200)
	}
	path := "/api/tunnel/allocations/" + allocation + "/kept-out"
	kept := decode[[]types.KeptOut](t, owner.send(t, "GET", path, nil), 200)
	if len(kept) != 1 || kept[0].Source != "2001:db8:0:7::/64" || kept[0].Until.Sub(kept[0].CreatedAt).Seconds() < 60 {
		t.Fatalf("kept out: %+v", kept)
	}
	decode[types.Problem](t, owner.send(t, "DELETE", path+"?source=nonsense", nil), 400)
	decode[types.Problem](t, owner.send(t, "DELETE", path, nil), 400)
	decode[types.Success](t, owner.send(t, "DELETE", path+"?source="+url.QueryEscape(kept[0].Source), nil), 200)
	decode[types.Problem](t, owner.send(t, "DELETE", path+"?source=2001:db8:0:7::9", nil), 404)
	if left := decode[[]types.KeptOut](t, owner.send(t, "GET", path, nil), 200); len(left) != 0 {
		t.Errorf("still kept out: %+v", left)
	}
	decode[types.Problem](t, owner.send(t, "DELETE", "/api/tunnel/connections/"+id+"?keepOutSeconds=86401", nil), 400)
	w.exec(t, `DELETE FROM connections`)
	decode[types.Problem](t, owner.send(t, "DELETE", "/api/tunnel/connections/"+id, nil), 404)
}
