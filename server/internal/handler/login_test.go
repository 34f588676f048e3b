package handler_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

const (
	ada = "ada@example.com"
	eve = "eve@example.com"
)

// logIn tries to log in from an address with the cookies of a browser. It returns the
// status, and the cookie by which the browser is known from then on.
func (p *panel) logIn(t *testing.T, address, email, password, cookies string) (status int, browser string) {
	t.Helper()
	a := p.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": email, "password": password},
		"X-Forwarded-For", address, "Cookie", cookies)
	for _, line := range a.header.Values("Set-Cookie") {
		if cookie, err := http.ParseSetCookie(line); err != nil {
			t.Error(err)
		} else if cookie.Name == "known_browser" {
			browser = cookie.Name + "=" + cookie.Value
		}
	}
	return a.status, browser
}

// mustLogIn logs in with the right password, and returns the browser's cookie.
func (p *panel) mustLogIn(t *testing.T, address, email, cookies string) (browser string) {
	t.Helper()
	status, browser := p.logIn(t, address, email, password, cookies)
	if status != http.StatusOK {
		t.Fatalf("a login to %s from %s: %d", email, address, status)
	}
	return browser
}

// exceed counts as many failures under a key as make it exceed its limit.
func (p *panel) exceed(t *testing.T, key string, limit int) {
	t.Helper()
	for range limit + 1 {
		if _, err := p.db.Take(t.Context(), key, limit, time.Minute, p.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

// attack counts as many failures for an account, from elsewhere, as are not slowed down.
func (p *panel) attack(t *testing.T, email string) {
	t.Helper()
	p.exceed(t, "login:email:"+email, 50)
}

// wantSlowed checks how many logins a call slows down.
func (p *panel) wantSlowed(t *testing.T, name string, want int, call func()) {
	t.Helper()
	before := p.auth.Slowed()
	call()
	if got := int(p.auth.Slowed() - before); got != want { //nolint:gosec // few
		t.Errorf("%s: %d logins were slowed down, want %d", name, got, want)
	}
}

func TestLogin_FailuresElsewhereDoNotConcernAKnownPlace(t *testing.T) {
	p := newPanel(t)
	p.user(t, ada, "user")
	p.user(t, eve, "user")
	replica := newReplica(t, p.db, p.Now()) // Which attackers ask too.
	shared := p.mustLogIn(t, "192.0.2.1", eve, p.mustLogIn(t, "192.0.2.1", ada, ""))
	p.mustLogIn(t, "2001:db8::1", ada, "")
	p.attack(t, ada)
	p.exceed(t, "login:address:198.51.100.2", 30)
	p.exceed(t, "login:email:"+ada+":login:address:198.51.100.3", 10)
	for name, place := range map[string]struct{ address, cookies string }{
		"an address":                        {"192.0.2.1", ""},
		"a network of IPv6":                 {"2001:db8::2", ""},
		"a browser elsewhere":               {"198.51.100.1", shared},
		"a browser at an attacker":          {"198.51.100.2", shared},
		"a browser at one of this account":  {"198.51.100.3", shared},
		"an address with a foreign cookie":  {"192.0.2.1", "known_browser=x"},
		"a browser with others' cookies":    {"198.51.100.4", "known_browser=x; " + shared + "; known_browser=y"},
		"a browser with many planted":       {"198.51.100.4", planted(15) + shared},
		"a browser with too many planted":   {"198.51.100.4", planted(30) + "__Host-" + shared},
		"an address and a browser together": {"192.0.2.1", shared},
	} {
		for which, at := range map[string]*panel{"one replica": p, "the other": replica} {
			at.wantSlowed(t, name+" at "+which, 0, func() { at.mustLogIn(t, place.address, ada, place.cookies) })
		}
	}
	for which, at := range map[string]*panel{"one replica": p, "the other": replica} {
		at.wantSlowed(t, which, 1, func() {
			if status, _ := at.logIn(t, "203.0.113.1", ada, "wrong", ""); status != http.StatusUnauthorized {
				t.Errorf("an attacker: %d", status)
			}
		})
	}
}

// planted returns the beginning of a Cookie header with n cookies of a parent domain.
func planted(n int) string {
	var header strings.Builder
	for i := range n {
		fmt.Fprintf(&header, "known_browser=x%d.x.x.x.x; ", i)
	}
	return header.String()
}

func TestLogin_OnlyACookieOfTheAccountHelps(t *testing.T) {
	p := newPanel(t)
	user := p.user(t, ada, "user").user
	p.user(t, eve, "user")
	good, eves := p.mustLogIn(t, "192.0.2.1", ada, ""), p.mustLogIn(t, "192.0.2.2", eve, "")
	old := p.mustLogIn(t, "192.0.2.1", ada, "")
	forged := []byte(good)
	forged[len(forged)-10] ^= 1
	elsewhere := newPanel(t)
	if _, err := dbtest.SQL(t, elsewhere.db).ExecContext(t.Context(), `UPDATE settings SET login_secret = 'another'`); err != nil {
		t.Fatal(err)
	}
	elsewhere = newReplica(t, elsewhere.db, p.Now())
	elsewhere.user(t, ada, "user")
	foreign := elsewhere.mustLogIn(t, "192.0.2.1", ada, "")

	slow := func(name string, i int, cookies string) {
		t.Helper()
		p.attack(t, ada)
		// The right password is not refused from anywhere.
		p.wantSlowed(t, name, 1, func() { p.mustLogIn(t, fmt.Sprint("198.51.100.", i), ada, cookies) })
	}
	slow("no cookie", 1, "")
	slow("another account's", 2, eves)
	slow("a forged one", 3, string(forged))
	slow("another panel's", 4, foreign)
	slow("nonsense", 5, "known_browser=..")
	p.wantSlowed(t, "a good one", 0, func() { p.mustLogIn(t, "198.51.100.6", ada, good) })
	p.advance(400*24*time.Hour - time.Minute)
	p.attack(t, ada)
	p.wantSlowed(t, "a good one of 399 days", 0, func() { good = p.mustLogIn(t, "198.51.100.7", ada, good) })
	p.advance(time.Minute)
	slow("one of 400 days", 8, old)
	p.wantSlowed(t, "one that was renewed", 0, func() { p.mustLogIn(t, "198.51.100.9", ada, good) })
	// The same password with another salt is as good as another password.
	hash, err := auth.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dbtest.SQL(t, p.db).ExecContext(t.Context(), `UPDATE users SET password_hash = $2 WHERE id = $1`, user.ID, hash); err != nil {
		t.Fatal(err)
	}
	slow("one of an old password", 10, good)
}

func TestLogin_AStolenCookieAllowsFewGuesses(t *testing.T) {
	p := newPanel(t)
	p.user(t, ada, "user")
	stolen := p.mustLogIn(t, "192.0.2.1", ada, "")
	p.attack(t, ada)
	guess := func(i int) {
		if status, _ := p.logIn(t, fmt.Sprint("198.51.100.", i), ada, "wrong", stolen); status != http.StatusUnauthorized {
			t.Errorf("guess %d: %d", i, status)
		}
	}
	p.wantSlowed(t, "the first ten", 0, func() {
		for i := range 10 {
			guess(i)
		}
	})
	p.wantSlowed(t, "the next two", 2, func() { guess(10); guess(11) })
	p.wantSlowed(t, "the owner's address", 0, func() { p.mustLogIn(t, "192.0.2.1", ada, stolen) })
}

func TestLogin_ManySourcesGuessSlowly(t *testing.T) {
	const guessers, interval = 12, 500 * time.Millisecond
	p := newPanel(t)
	p.user(t, ada, "user")
	for _, email := range []string{ada, "nobody@example.com"} {
		t.Run(email, func(t *testing.T) {
			p.attack(t, email)
			var all sync.WaitGroup
			var checked atomic.Int64
			var done atomic.Bool
			tried := make(chan struct{}, 10*guessers)
			began := time.Now()
			for i := range guessers {
				all.Go(func() {
					for n := 0; n < 10 && !done.Load(); n++ {
						status, _ := p.logIn(t, fmt.Sprint("198.51.100.", i), email, "wrong", "")
						switch status {
						case http.StatusUnauthorized:
							checked.Add(1)
						case http.StatusTooManyRequests:
						default:
							t.Errorf("a guess: %d", status)
						}
						tried <- struct{}{}
					}
				})
			}
			for range guessers / 2 { // Of which most have been served, and try again.
				<-tried
			}
			want, right := http.StatusUnauthorized, "wrong"
			if email == ada {
				want, right = http.StatusOK, password
			}
			asked := time.Now()
			if status, _ := p.logIn(t, "203.0.113.1", email, right, ""); status != want {
				t.Errorf("somebody from elsewhere: %d, want %d", status, want)
			}
			t.Logf("somebody from elsewhere waited %v", time.Since(asked))
			done.Store(true)
			all.Wait()
			if most := int64(time.Since(began)/interval) + 2; checked.Load() > most {
				t.Errorf("%d guesses in %v, want at most %d", checked.Load(), time.Since(began), most)
			}
		})
	}
}

func TestLogin_ABrowserIsKnownByACookieOfItsOwn(t *testing.T) {
	p := newPanel(t)
	p.user(t, ada, "user")
	a := p.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": ada, "password": password})
	lines := a.header.Values("Set-Cookie")
	if len(lines) != 4 { // Both by their published name and with a prefix.
		t.Fatalf("cookies %q", lines)
	}
	c, err := http.ParseSetCookie(lines[1])
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "known_browser" || c.Path != "/" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || !c.Secure || c.MaxAge != 400*24*3600 {
		t.Errorf("cookie %v", c)
	}
	// It is no credential.
	if a := p.anonymous().send(t, "GET", "/api/auth/session", nil, "Cookie", "session="+c.Value+"; known_browser="+c.Value); a.status != http.StatusUnauthorized {
		t.Errorf("a session: %d", a.status)
	}
	// One browser is known to the accounts of a family.
	family, browser := []string{ada}, "known_browser="+c.Value
	for i := range 4 {
		email := fmt.Sprintf("child%d@example.com", i)
		p.user(t, email, "user")
		browser = p.mustLogIn(t, "192.0.2.1", email, browser)
		family = append(family, email)
	}
	for i, email := range family {
		p.attack(t, email)
		want := 0
		if i == 0 { // Of five it keeps four.
			want = 1
		}
		p.wantSlowed(t, email, want, func() { p.mustLogIn(t, "198.51.100.1", email, browser) })
	}
}

func TestLogin_TheLastEightAddressesOfAYearAreKnown(t *testing.T) {
	p := newPanel(t)
	p.user(t, ada, "user")                                                                         // From one address, and from nine others below.
	address := func(i int) string { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String() } //nolint:gosec // few
	for i := range 9 {
		p.advance(time.Second)
		p.mustLogIn(t, address(i), ada, "")
		if i == 7 {
			p.mustLogIn(t, address(0), ada, "") // The oldest, again.
		}
	}
	var stored int
	row := dbtest.SQL(t, p.db).QueryRowContext(t.Context(), `SELECT count(*) FROM login_places`)
	if err := row.Scan(&stored); err != nil || stored != 8 {
		t.Errorf("%d places are stored: %v", stored, err)
	}
	guess := func(i, slowed int) {
		t.Helper()
		p.attack(t, ada)
		p.wantSlowed(t, address(i), slowed, func() { p.logIn(t, address(i), ada, uuid.NewString(), "") })
	}
	guess(0, 0)
	guess(8, 0)
	guess(2, 0)
	guess(1, 1)
	p.advance(365 * 24 * time.Hour)
	guess(8, 1)
}

// A /48 has more sources than an attacker needs.
func TestLogin_ManySourcesOfANetworkAreOne(t *testing.T) {
	p := newPanel(t)
	p.user(t, ada, "user")
	p.attack(t, ada)
	var all sync.WaitGroup
	var source atomic.Int64
	var done atomic.Bool
	tried := make(chan struct{}, 1000)
	for range 12 {
		all.Go(func() {
			for !done.Load() {
				p.logIn(t, fmt.Sprintf("2001:db8:1:%x::1", source.Add(1)), ada, "wrong", "")
				select {
				case tried <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 4 {
		<-tried
	}
	if status, _ := p.logIn(t, "203.0.113.1", ada, password, ""); status != http.StatusOK {
		t.Errorf("the owner from elsewhere: %d", status)
	}
	done.Store(true)
	all.Wait()
}

func TestLogin_EmailsOfOtherLetters(t *testing.T) {
	p := newPanel(t)
	for _, email := range []string{"Éva@example.com", "İnci@example.com", "ΣΊΣΥΦΟΣ@example.com"} {
		p.user(t, email, "user") // Logs in.
		p.mustLogIn(t, "203.0.113.1", email, "")
	}
}
