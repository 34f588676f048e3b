package webhooks_test

import (
	"context"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/live/webhooks"
)

// try sends a test to a webhook, and returns what came of it.
func (s *service) try(webhook db.Webhook) db.WebhookDelivery {
	s.f.Helper()
	delivery, err := s.Test(s.f.Context(), db.Scope{All: true}, webhook.ID)
	s.f.check(err)
	return delivery
}

const refused = "the address is private, or the panel's own"

// TestService_RefusesAddressesThatAreNotPublic sends to addresses that stand in the URL, or that a name leads to.
func TestService_RefusesAddressesThatAreNotPublic(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	u, err := url.Parse(r.url)
	f.check(err)
	var address atomic.Pointer[netip.Addr]
	s := f.start(func(o *webhooks.Options) {
		o.PrivateTargets = false
		o.Lookup = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{*address.Load()}, nil }
	})
	for i, text := range []string{
		"127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
		"fe80::1", "fc00::1", "fec0::1", "100.64.0.1", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "0.1.2.3", "192.0.0.8",
		"192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "2001:db8::1", "2002:7f00:1::1", "2001::1",
		"64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "::7f00:1", "100::1", "3fff::1", "5f00::1",
	} {
		f.exec(`DELETE FROM webhooks`)
		a := netip.MustParseAddr(text)
		address.Store(&a)
		host := "rebinding.example.com"
		if i%2 == 0 {
			host = text
			if a.Is6() {
				host = "[" + text + "]"
			}
		}
		hook := f.webhook(db.APIKeyOwner{}, types.WebhookStandard, "http://"+host+":"+u.Port()+"/", quotaReached)
		if got := s.try(hook); got.State != db.DeliveryFailed || got.Error != refused || got.Status != nil {
			t.Errorf("%s: %+v", hook.URL, got)
		}
		if i%2 == 0 {
			if _, err := s.CheckURL("https://"+host+"/", types.WebhookStandard); err == nil {
				t.Errorf("%s is accepted as a URL", host)
			}
		}
	}
	if len(r.got) != 0 {
		t.Error("a receiver on the loopback got something")
	}
	for public, want := range map[string]string{
		"https://1.1.1.1/": "https://1.1.1.1:443", "https://[2606:4700::1111]/": "https://[2606:4700::1111]:443",
		"https://[64:ff9b::101:101]/": "https://[64:ff9b::101:101]:443", "https://example.com:8443/a?b=c": "https://example.com:8443",
		// Many messages to one host are not fewer by another spelling of it.
		"https://example.com": "https://example.com:443", "https://EXAMPLE.com.:443/a": "https://example.com:443",
		"https://example.com:0443/": "https://example.com:443", "https://example.com:/": "https://example.com:443",
	} {
		if target, err := s.CheckURL(public, types.WebhookStandard); err != nil || target != want {
			t.Errorf("%s has the target %s (%v), want %s", public, target, err, want)
		}
	}
	if target, err := s.CheckURL("https://example.com:70000/", types.WebhookStandard); err == nil {
		t.Errorf("a port that is none has the target %s", target)
	}
}

// TestService_ChecksTheAddressThatItConnectsTo has a name lead elsewhere with every lookup.
func TestService_ChecksTheAddressThatItConnectsTo(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	u, err := url.Parse(r.url)
	f.check(err)
	var lookups atomic.Int32
	s := f.start(func(o *webhooks.Options) {
		o.PrivateTargets = false
		o.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			if lookups.Add(1) == 1 {
				return nil, context.DeadlineExceeded // As of a name server that wants to be asked once more.
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
	})
	hook := f.webhook(db.APIKeyOwner{}, types.WebhookStandard, "http://rebinding.example.com:"+u.Port()+"/", quotaReached)
	if got := s.try(hook); !strings.Contains(got.Error, "in time") {
		t.Errorf("first %+v", got)
	}
	if got := s.try(hook); got.Error != refused || len(r.got) != 0 {
		t.Errorf("then %+v, and the receiver got %d requests", got, len(r.got))
	}
}

// TestService_KeepsNothingOfAResponse: a response could be what the webhook's owner must not read.
func TestService_KeepsNothingOfAResponse(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	hook := f.webhook(db.APIKeyOwner{}, types.WebhookStandard, r.url, quotaReached)
	s := f.start()
	r.answer(500)
	if got := s.try(hook); *got.Status != 500 || got.Error != "the receiver answered 500" {
		t.Errorf("%+v", got)
	}
	hook = f.webhook(db.APIKeyOwner{}, types.WebhookStandard, "http://127.0.0.1:1/a-secret", quotaReached)
	if got := s.try(hook); got.Error != "the connection was refused" {
		t.Errorf("%+v", got)
	}
}
