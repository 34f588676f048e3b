package db_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// twoReplicas returns a database twice, whose statements may wait for each other for long.
func twoReplicas(t *testing.T) [2]*db.DB {
	t.Helper()
	url := dbtest.URL(t)
	replicas := [2]*db.DB{dbtest.Open(t, url), dbtest.Open(t, url)}
	for _, d := range replicas {
		d.SetStatementTimeout(6 * await.Timeout)
	}
	return replicas
}

// creator adds something, for the call with a number.
type creator = func(d *db.DB, n int) error

// together calls fn 50 times at once, on both replicas, and returns how many calls added something. The others
// fail because of the quota, and say that so much is used; those that the database has no time for are made again.
func together(t *testing.T, replicas [2]*db.DB, fn creator) (added int, used map[int]bool) {
	t.Helper()
	var count atomic.Int64
	var calls sync.WaitGroup
	var mu sync.Mutex
	used = map[int]bool{}
	start := make(chan struct{})
	for n := range 50 {
		calls.Go(func() {
			<-start
			var quota *db.QuotaError
			err := fn(replicas[n%2], n)
			for db.Unavailable(err) || errors.Is(err, db.ErrBusy) {
				err = fn(replicas[n%2], n)
			}
			switch {
			case err == nil:
				count.Add(1)
			case errors.As(err, &quota):
				mu.Lock()
				used[quota.Used] = true
				mu.Unlock()
			default:
				t.Errorf("call %d: %v", n, err)
			}
		})
	}
	close(start)
	calls.Wait()
	return int(count.Load()), used
}

// creators are all ways to add something to what an owner has, by 50 calls.
func creators(t *testing.T, d *db.DB) map[string]func(o tenant) creator {
	t.Helper()
	server := wide(t, d)
	other := tenant{user: ptr(createUser(t, d, "other@example.com"))}
	allocate := func(o tenant, change func(r *db.NewAllocation, n int)) creator {
		clients := []db.Device{o.device(t, d), o.device(t, d)}
		return func(d *db.DB, n int) error {
			request := newAllocation(clients[n/2%2].ID, &server.ID, "tcp")
			change(&request, n)
			_, err := d.CreateAllocations(context.Background(), request)
			return err
		}
	}
	return map[string]func(o tenant) creator{
		"devices created": func(o tenant) creator {
			return func(d *db.DB, _ int) error { _, err := o.create(d); return err }
		},
		"devices approved": func(o tenant) creator {
			var pending [50]db.Device
			for i := range pending {
				pending[i] = startEnrollment(t, d, db.KindClient)
			}
			return func(d *db.DB, n int) error {
				_, err := d.ApproveDevice(context.Background(), pending[n].ID, db.Approval{At: noon, OwnerID: o.user, OrganisationID: o.organisation})
				return err
			}
		},
		"devices moved": func(o tenant) creator {
			var devices [50]db.Device
			for i := range devices {
				devices[i] = other.device(t, d)
			}
			return func(d *db.DB, n int) error {
				_, err := d.UpdateDevice(context.Background(), everything, devices[n].ID, db.DevicePatch{Owner: o.owner()})
				return err
			}
		},
		"allocations": func(o tenant) creator { return allocate(o, func(*db.NewAllocation, int) {}) },
		"runs":        func(o tenant) creator { return allocate(o, func(r *db.NewAllocation, _ int) { r.Count = 2 }) },
		"ports outside the range": func(o tenant) creator {
			first := 30000
			if o.user != nil {
				first = 40000
			}
			return allocate(o, func(r *db.NewAllocation, n int) { r.Port, r.Protocols = first+n, []string{"tcp", "udp"} })
		},
	}
}

// TestQuotas_AreExactWithFiftyCreators lets 50 transactions on two replicas add to an owner at the same time, in
// every way that there is. Each quota is 7.
func TestQuotas_AreExactWithFiftyCreators(t *testing.T) {
	replicas := twoReplicas(t)
	d := replicas[0]
	begin := creators(t, d)
	for name, c := range map[string]struct {
		quota   db.QuotaPatch
		calls   int // That succeed.
		reached int
		used    db.Usage
	}{
		"devices created":         {`{"devices":7}`, 7, 7, db.Usage{Devices: 7}},
		"devices approved":        {`{"devices":7}`, 7, 7, db.Usage{Devices: 7}},
		"devices moved":           {`{"devices":7}`, 7, 7, db.Usage{Devices: 7}},
		"allocations":             {`{"allocations":7}`, 7, 7, db.Usage{Devices: 2, Allocations: 7}},
		"runs":                    {`{"allocations":7}`, 3, 6, db.Usage{Devices: 2, Allocations: 6}}, // Of two, all or none.
		"ports outside the range": {`{"portsOutsideRange":7}`, 7, 7, db.Usage{Devices: 2, Allocations: 14, PortsOutsideRange: 7}},
	} {
		for kind, o := range tenants(t, d) {
			if kind == "organisation" && (name == "devices approved" || name == "runs") {
				continue // The user's show what these are about.
			}
			t.Run(kind+"'s "+name, func(t *testing.T) {
				o.set(t, d, c.quota)
				if added, used := together(t, replicas, begin[name](o)); added != c.calls || !maps.Equal(used, map[int]bool{c.reached: true}) {
					t.Errorf("%d calls succeeded, want %d; the others say that so much is used: %v", added, c.calls, used)
				}
				if used := o.quota(t, d).Usage; used != c.used {
					t.Errorf("%+v is used, want %+v", used, c.used)
				}
			})
		}
	}
}

// TestQuotas_AreExactWhileTheyAreSet sets a limit, of the owner and of the site, while 50 transactions add.
func TestQuotas_AreExactWhileTheyAreSet(t *testing.T) {
	replicas := twoReplicas(t)
	d := replicas[0]
	for name, set := range map[string]func(o tenant) error{
		"own": func(o tenant) error {
			_, err := d.UpdateUserQuota(context.Background(), *o.user, `{"devices":20}`)
			return err
		},
		"of the site": func(tenant) error {
			_, err := d.UpdateSettings(context.Background(), db.SettingsPatch{Quota: `{"devices":20}`})
			return err
		},
		"of one who is no admin any more": func(o tenant) error {
			_, err := d.UpdateUser(context.Background(), *o.user, db.UserPatch{Role: ptr("user")})
			return err
		},
	} {
		_, err := d.UpdateSettings(t.Context(), db.SettingsPatch{Quota: `{"devices":null}`})
		check(t, err)
		o := tenants(t, d)["user"]
		if name == "of one who is no admin any more" {
			newUser(t, d, "root@example.com", "admin")
			_, err := d.UpdateUser(t.Context(), *o.user, db.UserPatch{Role: ptr("admin")})
			check(t, err)
			_, err = d.UpdateSettings(t.Context(), db.SettingsPatch{Quota: `{"devices":20}`})
			check(t, err)
		}
		var begun atomic.Int64
		halfway, result := make(chan struct{}), make(chan error, 1)
		go func() {
			<-halfway
			err := set(o)
			for db.Unavailable(err) || errors.Is(err, db.ErrBusy) {
				err = set(o)
			}
			result <- err
		}()
		_, used := together(t, replicas, func(d *db.DB, _ int) error {
			_, err := o.create(d)
			if err == nil && begun.Add(1) == 10 {
				close(halfway)
			}
			return err
		})
		check(t, <-result)
		// Nothing is added once something is refused.
		now := o.quota(t, d).Devices
		delete(used, now)
		if now < 20 || len(used) > 0 {
			t.Errorf("%s: there are %d devices, and some were refused when there were %v", name, now, used)
		}
		_, err = o.create(d)
		wantQuota(t, err, "devices", 20, now)
	}
}
