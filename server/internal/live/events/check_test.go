package events_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/live/events"
)

// TestCheck_DoesNotWaitForAnotherService: while the service that has issued somebody's credential does not answer, the
// streams of others end with their sessions, and so do all with the panel.
func TestCheck_DoesNotWaitForAnotherService(t *testing.T) {
	d := dbtest.New(t)
	asked := make(chan struct{}, 1)
	r := newReplica(t, d, func(o *events.Options) {
		o.Authenticate = func(r *http.Request) (auth.Principal, error) {
			select {
			case asked <- struct{}{}:
			default:
			}
			<-r.Context().Done()
			return auth.Principal{}, r.Context().Err()
		}
	})
	ada, bob := newUser(t, d, "ada"), newUser(t, d, "bob")
	foreign := r.follow(auth.Principal{User: &db.User{ID: bob, Role: "user"}, Session: &db.Session{ID: uuid.Nil, UserID: bob}}, "", "")
	foreign.want("ready")
	await.Receive(t, asked, "question to the other service")
	own := r.principal(follower{user: ada})
	s := r.follow(own, "", "")
	s.want("ready")
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(), `DELETE FROM sessions WHERE id = $1`, own.Session.ID)
	check(t, err)
	began := time.Now()
	s.want("") // It ends, or nothing comes for long.
	if took := time.Since(began); took >= await.Timeout {
		t.Errorf("the stream goes on for %v after its session", took)
	}
}
