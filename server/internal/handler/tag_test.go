package handler_test

import (
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const tagPath = "/api/tunnel/device/pending?tag="

var tag = strings.Repeat("tag-", 5) + "_1"

func TestPending_FindsByTagWhatTheCallerMayDecide(t *testing.T) {
	p := newPanel(t)
	admin, ada, eve := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "eve@example.com", "user")
	started := ada.start(t, `{"name":"rig","tag":"`+tag+`"}`)
	wantError(t, ada.send(t, "GET", tagPath+tag, nil), 403, types.CodeForbidden)
	ownersApprove(t, admin, true)
	for _, c := range []caller{admin, ada} {
		got := decode[types.PendingEnrollment](t, c.send(t, "GET", tagPath+tag, nil), 200)
		if got.UserCode != started.UserCode || got.Name != "rig" || got.OwnerID.MustGet() != ada.user.ID {
			t.Errorf("shown as %+v", got)
		}
	}
	wantError(t, eve.send(t, "GET", tagPath+tag, nil), 404, types.CodeNotFound)
	wantError(t, p.anonymous().send(t, "GET", tagPath+tag, nil), 401, types.CodeUnauthorized)

	wantField(t, ada.send(t, "GET", "/api/tunnel/device/pending", nil), "userCode")
	wantField(t, ada.send(t, "GET", tagPath+tag+"&userCode="+started.UserCode, nil), "tag")
	wantField(t, ada.send(t, "GET", tagPath+tag[1:], nil), "tag")
	wantField(t, ada.send(t, "POST", startPath, map[string]string{"name": "rig", "tag": tag + "x"}), "tag")

	var stored int
	row := dbtest.SQL(t, p.db).QueryRowContext(t.Context(), `SELECT count(*) FROM devices d WHERE strpos(d::text, $1) > 0`, tag)
	if err := row.Scan(&stored); err != nil || stored != 0 {
		t.Errorf("%d rows have the tag itself, %v", stored, err)
	}
}

func TestPending_LooksByTagAreNoGuesses(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	for range 30 {
		wantError(t, admin.send(t, "GET", tagPath+tag, nil), 404, types.CodeNotFound)
	}
	started := p.anonymous().start(t, `{"name":"home","tag":"`+tag+`"}`)
	decode[types.PendingEnrollment](t, admin.send(t, "GET", tagPath+tag, nil), 200)
	decode[types.DeviceApproved](t, admin.send(t, "POST", approvePath, code(started.UserCode)), 200)
	wantError(t, admin.send(t, "GET", tagPath+tag, nil), 409, types.CodeAlreadyApproved)
}
