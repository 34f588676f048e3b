package webhooks

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// notice is a message in words.
type notice struct {
	title, text string
	link        string // Empty if there is none.
	bad         bool   // Something does not work.
	good        bool   // It works again.
	tag         string // The name of an emoji in ntfy.
}

// words returns a payload in words.
func words(payload types.WebhookPayload) notice {
	data := payload.Data
	switch {
	case payload.Type == string(types.WebhookDeviceOffline) && data.Device != nil:
		text := describeDevice(*data.Device) + " has lost its connection to the panel."
		if seen, err := data.Device.LastSeenAt.Get(); err == nil {
			text = describeDevice(*data.Device) + " was last connected at " + seen.UTC().Format("2006-01-02 15:04:05 MST") + "."
		}
		return notice{title: data.Device.Name + " is offline", text: text, bad: true, tag: "red_circle"}
	case payload.Type == string(types.WebhookDeviceOnline) && data.Device != nil:
		return notice{title: data.Device.Name + " is online again", text: describeDevice(*data.Device) + " is connected again.", good: true, tag: "green_circle"}
	case payload.Type == string(types.WebhookAllocationFailed) && data.Allocation != nil:
		text := "Players cannot join."
		if reason, err := data.Allocation.StatusReason.Get(); err == nil {
			text = "Players cannot join: " + reason
		}
		return notice{title: describeAllocation(*data.Allocation) + " has failed", text: text, bad: true, tag: "red_circle"}
	case payload.Type == string(types.WebhookAllocationRecovered) && data.Allocation != nil:
		return notice{title: describeAllocation(*data.Allocation) + " works again", text: "Players can join.", good: true, tag: "green_circle"}
	case payload.Type == string(types.WebhookEnrollmentWaiting) && data.Device != nil && data.ApprovalURL != nil:
		return notice{
			title: data.Device.Name + " waits for approval",
			text:  describeDevice(*data.Device) + " asks to be approved, with the code that it shows.", link: *data.ApprovalURL, tag: "hourglass",
		}
	case payload.Type == string(types.WebhookQuotaReached) && data.Quota != nil:
		return notice{title: "A quota is reached", text: describeQuota(*data.Quota), tag: "no_entry"}
	default:
		return notice{title: "This is a test", text: "Messages of this webhook arrive here.", tag: "test_tube"}
	}
}

func describeDevice(device types.Device) string {
	if device.Kind == types.DeviceKindServer {
		return "The tunnel server " + device.Name
	}
	return "The device " + device.Name
}

func describeAllocation(allocation types.Allocation) string {
	if allocation.Name == "" {
		return fmt.Sprintf("%s (%s)", allocation.PublicAddress, allocation.Protocol)
	}
	return fmt.Sprintf("%s at %s (%s)", allocation.Name, allocation.PublicAddress, allocation.Protocol)
}

func describeQuota(quota types.WebhookQuota) string {
	owner := "A user"
	if id, err := quota.UserID.Get(); err == nil {
		owner = fmt.Sprintf("User %d", id)
	}
	if id, err := quota.OrganisationID.Get(); err == nil {
		owner = fmt.Sprintf("Organisation %d", id)
	}
	what := map[types.QuotaResource]string{
		types.QuotaDevices: "devices", types.QuotaAllocations: "allocations", types.QuotaPortsOutsideRange: "ports outside the range",
	}[quota.Resource]
	return fmt.Sprintf("%s has %d of %d %s, and was refused more.", owner, quota.Used, quota.Limit, what)
}

// request is what is sent: a body to a URL.
type request struct {
	url  string
	body []byte
}

// format returns what is sent to a URL for a payload, in a format.
func format(name types.WebhookFormat, to string, payload []byte) (request, error) {
	if name == types.WebhookStandard {
		return request{to, payload}, nil
	}
	var p types.WebhookPayload
	if err := json.Unmarshal(payload, &p); err != nil {
		return request{}, fmt.Errorf("payload: %w", err)
	}
	if name == types.WebhookDiscord {
		return discord(to, p)
	}
	return ntfy(to, p)
}

// Limits of Discord, in characters (https://discord.com/developers/docs/resources/message#embed-object-embed-limits).
const (
	maxEmbedTitle       = 256
	maxEmbedDescription = 4096
)

// Colours of Discord's embeds.
const (
	red   = 0xd83c3e
	green = 0x3ba55d
	grey  = 0x747f8d
)

type discordMessage struct {
	Username        string          `json:"username"`
	Embeds          []discordEmbed  `json:"embeds"`
	AllowedMentions discordMentions `json:"allowed_mentions"`
}

// discordMentions permits none: names in messages are whatever people have called their devices.
type discordMentions struct {
	Parse []string `json:"parse"`
}

type discordEmbed struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	URL         string `json:"url,omitempty"`
	Color       int    `json:"color"`
	Timestamp   string `json:"timestamp"`
}

// discord returns a message for a webhook of a Discord channel
// (https://discord.com/developers/docs/resources/webhook#execute-webhook).
func discord(to string, payload types.WebhookPayload) (request, error) {
	n := words(payload)
	colour := grey
	switch {
	case n.bad:
		colour = red
	case n.good:
		colour = green
	}
	body, err := json.Marshal(discordMessage{
		Username: "EcliTunnel",
		Embeds: []discordEmbed{{
			Title: cut(markdown.Replace(n.title), maxEmbedTitle), Description: cut(markdown.Replace(n.text), maxEmbedDescription),
			URL: n.link, Color: colour, Timestamp: payload.Timestamp.UTC().Format("2006-01-02T15:04:05.000Z"),
		}},
		AllowedMentions: discordMentions{Parse: []string{}},
	})
	return request{to, body}, err
}

// markdown has Discord show text as it is.
var markdown = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, `~`, `\~`, "`", "\\`", `|`, `\|`, `>`, `\>`, `[`, `\[`, `]`, `\]`, `<`, `\<`, `#`, `\#`)

// maxNotice is the length from which ntfy makes a message an attachment, in bytes.
const maxNotice = 4000

// Priorities of ntfy.
const (
	priorityDefault = 3
	priorityHigh    = 4
)

type ntfyMessage struct {
	Topic    string   `json:"topic"`
	Title    string   `json:"title"`
	Message  string   `json:"message"`
	Priority int      `json:"priority"`
	Tags     []string `json:"tags"`
	Click    string   `json:"click,omitempty"`
}

// ntfy returns a message for the topic of a URL. It is JSON, which goes to the root of the server
// (https://docs.ntfy.sh/publish/#publish-as-json); headers, which go to the topic, cannot have all characters.
func ntfy(to string, payload types.WebhookPayload) (request, error) {
	u, err := url.Parse(to)
	if err != nil {
		return request{}, errTarget // The error of Parse quotes the URL.
	}
	n := words(payload)
	message := ntfyMessage{
		Topic: strings.TrimPrefix(u.Path, "/"), Title: cut(n.title, maxEmbedTitle), Message: cut(n.text, maxNotice/utf8.UTFMax),
		Priority: priorityDefault, Tags: []string{n.tag}, Click: n.link,
	}
	if n.bad {
		message.Priority = priorityHigh
	}
	body, err := json.Marshal(message)
	u.Path, u.RawPath = "/", ""
	return request{u.String(), body}, err
}

// cut returns the first characters of a text.
func cut(text string, characters int) string {
	if utf8.RuneCountInString(text) <= characters {
		return text
	}
	runes := []rune(text)
	return string(runes[:characters-1]) + "…"
}
