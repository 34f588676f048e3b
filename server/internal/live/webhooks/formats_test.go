package webhooks_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// strictly decodes JSON without unknown fields.
func strictly(t *testing.T, body []byte, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
}

// checkDiscord checks a message as Discord does
// (https://discord.com/developers/docs/resources/webhook#execute-webhook), and returns its title and text.
func checkDiscord(t *testing.T, body []byte) (title, text string) {
	t.Helper()
	var message struct {
		Username string `json:"username"`
		Content  string `json:"content"`
		Embeds   []struct {
			Title       string    `json:"title"`
			Description string    `json:"description"`
			URL         string    `json:"url"`
			Color       int       `json:"color"`
			Timestamp   time.Time `json:"timestamp"`
		} `json:"embeds"`
		AllowedMentions *struct {
			Parse []string `json:"parse"`
		} `json:"allowed_mentions"`
	}
	strictly(t, body, &message)
	if len(message.Embeds) != 1 || message.AllowedMentions == nil || message.AllowedMentions.Parse == nil || len(message.AllowedMentions.Parse) != 0 {
		t.Fatalf("not one embed, or mentions: %s", body)
	}
	e := message.Embeds[0]
	if utf8.RuneCountInString(e.Title) > 256 || e.Title == "" || utf8.RuneCountInString(e.Description) > 4096 || e.Color < 0 || e.Color > 0xffffff ||
		e.Timestamp.IsZero() || len(message.Username) > 80 || strings.Contains(strings.ToLower(message.Username), "discord") {
		t.Errorf("Discord refuses %s", body)
	}
	return e.Title, e.Description
}

// checkNtfy checks a message as ntfy does (https://docs.ntfy.sh/publish/#publish-as-json).
func checkNtfy(t *testing.T, body []byte) (title, text string) {
	t.Helper()
	var message struct {
		Topic    string   `json:"topic"`
		Title    string   `json:"title"`
		Message  string   `json:"message"`
		Priority int      `json:"priority"`
		Tags     []string `json:"tags"`
		Click    string   `json:"click"`
	}
	strictly(t, body, &message)
	if !regexp.MustCompile(`^[-_A-Za-z0-9]{1,64}$`).MatchString(message.Topic) || message.Priority < 1 || message.Priority > 5 || len(message.Message) > 4096 ||
		message.Message == "" || len(message.Tags) != 1 {
		t.Errorf("ntfy refuses %s", body)
	}
	if message.Topic != "my-topic" {
		t.Errorf("the topic is %q", message.Topic)
	}
	return message.Title, message.Message
}

// TestService_WritesForDiscordAndNtfy sends each type of event in each format.
func TestService_WritesForDiscordAndNtfy(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	all := []string{"device.offline", "device.online", "enrollment.waiting", quotaReached}
	f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookDiscord, strings.Replace(r.url, "/hook", "/api/webhooks/1/token", 1), all...)
	f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookNtfy, strings.Replace(r.url, "/hook", "/my-topic", 1), all...)
	device, generation := f.device(db.KindClient, db.APIKeyOwner{UserID: &ada})
	f.exec(`UPDATE devices SET name = $1`, "@everyone **"+strings.Repeat("ä", 80)+"**")
	s := f.start()
	expect := func(what string) {
		t.Helper()
		for range 2 {
			got := await.Receive(t, r.got, what)
			check, path := checkNtfy, "/?token=a-secret"
			if strings.HasPrefix(got.path, "/api") {
				check, path = checkDiscord, "/api/webhooks/1/token?token=a-secret"
			}
			if got.path != path || got.header.Get("webhook-signature") == "" {
				t.Errorf("sent to %s with %v", got.path, got.header)
			}
			title, text := check(t, got.body)
			if !strings.Contains(title+text, what) || path[1] == 'a' && strings.Contains(title+text, " **") {
				t.Errorf("%s: %q, %q", what, title, text)
			}
		}
	}
	s.pass(time.Minute)
	f.disconnect(device, generation)
	s.pass(80 * time.Second)
	expect("is offline")
	f.connect(device)
	s.pass(10 * time.Second)
	expect("is online again")
	f.waiting("rig", "CDFG-2345", ada)
	s.pass(10 * time.Second)
	expect("rig waits for approval")
	s.reach(ada)
	expect("1 of 1 devices")
}
