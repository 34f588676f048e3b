package webhooks

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
)

// The headers and the prefix of a secret, as the Standard Webhooks specification has them.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"

	secretPrefix = "whsec_"
	secretBytes  = 32 // The specification wants 24 to 64.
)

// NewSecret returns a random secret for signatures.
func NewSecret() string {
	key := make([]byte, secretBytes)
	_, _ = rand.Read(key) // It never fails.
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// signatures returns the value of the header for a body that is sent at a time: one signature for each secret that
// is in use then.
func signatures(webhook db.Webhook, id string, at time.Time, body []byte) (string, error) {
	secrets := []string{webhook.Secret}
	if webhook.OldSecret != "" && webhook.OldSecretUntil != nil && at.Before(*webhook.OldSecretUntil) {
		secrets = append(secrets, webhook.OldSecret)
	}
	signed := make([]string, 0, len(secrets))
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
		if err != nil || len(key) == 0 {
			return "", fmt.Errorf("webhook %d has no valid secret", webhook.ID)
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		signed = append(signed, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(signed, " "), nil
}
