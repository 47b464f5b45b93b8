// Package signin makes Entra ID credentials.
//
// One identity serves all sources of a section. The azure.* settings name it, and each source's own
// auth setting (eventhub.auth, blob.auth, device_info.auth) chooses how it signs in. Tokens are
// fetched, cached and renewed by azidentity.
package signin

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/fluent-bit-defender/fluent-bit-defender/input"
	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

// The ways to sign in with Entra ID. A source adds its own to these (connection_string, sas).
const (
	Entra             = "entra" // azidentity's default chain: environment, workload identity, managed identity, developer tools
	ManagedIdentity   = "managed_identity"
	WorkloadIdentity  = "workload_identity"
	ClientSecret      = "client_secret"
	ClientCertificate = "client_certificate"
)

// Methods lists the ways to sign in with Entra ID, for the choices of an auth setting.
var Methods = []string{Entra, ManagedIdentity, WorkloadIdentity, ClientSecret, ClientCertificate}

// Settings says who signs in.
var Settings = []input.Setting{
	{Key: "azure.tenant_id", Kind: input.Text, Doc: "Entra tenant of the identity that signs in."},
	{Key: "azure.client_id", Kind: input.Text, Doc: "Client id of the application, or of a user-assigned managed identity."},
	{Key: "azure.client_secret", Kind: input.SecretText, Doc: "Secret of the application, for auth `client_secret`."},
	{Key: "azure.client_certificate", Kind: input.Text, Doc: "PEM or PKCS#12 file with the application's certificate and key, for auth `client_certificate`."},
	{Key: "azure.client_certificate_password", Kind: input.SecretText, Doc: "Password of that file, if it has one."},
	{Key: "azure.cloud", Kind: input.Choice, Default: "public", Choices: []string{"public", "usgov", "china"}, Doc: "Azure cloud. It decides the sign-in host and the default endpoints."},
	{Key: "azure.authority_host", Kind: input.Text, Doc: "Sign-in host, such as `https://login.microsoftonline.com/`, if it is not the cloud's own."},
	{Key: "azure.ca_file", Kind: input.Text, Doc: "PEM file of certificate authorities to trust besides the system's, for sign-in and all HTTPS."},
}

// Config says who signs in.
type Config struct {
	TenantID, ClientID  string
	Secret              input.Secret
	Certificate         []byte // the file's content
	CertificatePassword input.Secret
	Cloud               string // public, usgov, china
	AuthorityHost       string // empty for the cloud's own
	CAFile              string
	HTTP                *http.Client // of web.NewClient, with CAFile; each source puts its own web.Guard around it
}

// Read reads the azure.* settings and notes every mistake in s.
func Read(s *input.Settings) Config {
	c := Config{
		TenantID:            s.Text("azure.tenant_id"),
		ClientID:            s.Text("azure.client_id"),
		Secret:              s.Secret("azure.client_secret"),
		CertificatePassword: s.Secret("azure.client_certificate_password"),
		Cloud:               s.Choice("azure.cloud"),
		AuthorityHost:       s.Text("azure.authority_host"),
		CAFile:              s.Text("azure.ca_file"),
	}
	if c.AuthorityHost != "" {
		if problem := web.CheckAddress(c.AuthorityHost); problem != "" || !strings.HasPrefix(strings.ToLower(c.AuthorityHost), "https:") {
			s.Reject("azure.authority_host", "is not an https URL; write it as https://login.microsoftonline.us/")
		}
	}
	if path := s.Text("azure.client_certificate"); path != "" {
		b, err := input.ReadFile(path)
		if err == nil {
			_, _, err = azidentity.ParseCertificates(b, []byte(c.CertificatePassword.Reveal()))
		}
		if err != nil {
			s.Reject("azure.client_certificate", fmt.Sprintf("cannot be used: %v; give a PEM or PKCS#12 file with certificate and key that Fluent Bit's user can read, and its password in azure.client_certificate_password", err))
		}
		c.Certificate = b
	}
	var err error
	c.HTTP, err = web.NewClient(c.CAFile)
	if err != nil {
		s.Reject("azure.ca_file", err.Error())
	}
	return c
}

// Check notes in s the settings that the method of authKey lacks.
func (c Config) Check(s *input.Settings, authKey, method string) {
	lack := func(key, what string, there bool) {
		if !there {
			s.Reject(authKey, fmt.Sprintf("is %s, which needs %s: set %s", method, what, key))
		}
	}
	switch method {
	case ClientSecret:
		lack("azure.tenant_id", "the tenant", c.TenantID != "")
		lack("azure.client_id", "the application", c.ClientID != "")
		lack("azure.client_secret or azure.client_secret_file", "its secret", c.Secret.IsSet() || s.IsSet("azure.client_secret"))
	case ClientCertificate:
		lack("azure.tenant_id", "the tenant", c.TenantID != "")
		lack("azure.client_id", "the application", c.ClientID != "")
		lack("azure.client_certificate", "its certificate", len(c.Certificate) > 0)
	}
}

// Credential returns what fetches tokens by method, one of Methods. It asks nobody yet: wrong
// secrets show at the first token.
func (c Config) Credential(method string) (azcore.TokenCredential, error) {
	options := azcore.ClientOptions{Cloud: c.cloud(), Transport: c.transport()}
	// azidentity asks Microsoft's own host whether it knows the authority; a private one it cannot
	// know.
	private := c.AuthorityHost != ""
	var cred azcore.TokenCredential
	var err error
	switch method {
	case Entra:
		cred, err = azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: options, TenantID: c.TenantID, DisableInstanceDiscovery: private})
	case ManagedIdentity:
		o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
		if c.ClientID != "" {
			o.ID = azidentity.ClientID(c.ClientID)
		}
		cred, err = azidentity.NewManagedIdentityCredential(o)
	case WorkloadIdentity:
		cred, err = azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, ClientID: c.ClientID, TenantID: c.TenantID, DisableInstanceDiscovery: private})
	case ClientSecret:
		cred, err = azidentity.NewClientSecretCredential(c.TenantID, c.ClientID, c.Secret.Reveal(),
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: private})
	case ClientCertificate:
		certs, key, e := azidentity.ParseCertificates(c.Certificate, []byte(c.CertificatePassword.Reveal()))
		if e != nil {
			return nil, fmt.Errorf("read azure.client_certificate: %w", e)
		}
		cred, err = azidentity.NewClientCertificateCredential(c.TenantID, c.ClientID, certs, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: private})
	default:
		panic("BUG: unknown way to sign in: " + method)
	}
	if err != nil {
		return nil, fmt.Errorf("sign in by %s: %w", method, err)
	}
	return newBounded(cred), nil
}

// maxToken is the most bytes of a token answer, or of anything else that a sign-in host answers.
// Real ones have a few kB.
const maxToken = 1 << 20

// transport is the HTTP client of sign-in. Service Fabric pins its certificate into the client, and
// azidentity refuses one that it cannot take apart there; that endpoint is on the machine itself.
func (c Config) transport() policy.Transporter {
	if c.HTTP == nil {
		return nil
	}
	if os.Getenv("IDENTITY_SERVER_THUMBPRINT") != "" {
		return c.HTTP
	}
	return web.Guard(c.HTTP, web.AtMost(maxToken))
}

func (c Config) cloud() cloud.Configuration {
	conf := map[string]cloud.Configuration{"usgov": cloud.AzureGovernment, "china": cloud.AzureChina}[c.Cloud]
	if conf.ActiveDirectoryAuthorityHost == "" {
		conf = cloud.AzurePublic
	}
	if c.AuthorityHost != "" {
		conf.ActiveDirectoryAuthorityHost = c.AuthorityHost
	}
	return conf
}

// Explain turns an error of azidentity, which can fill pages, into one line that says what to
// check. Any other error is returned unchanged.
func Explain(err error) error {
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) {
		return err
	}
	text := err.Error()
	for _, known := range []struct{ code, check string }{
		{"AADSTS7000215", "the client secret is wrong; azure.client_secret wants the secret's value, not its id"},
		{"AADSTS7000222", "the client secret has expired; make a new one for the application"},
		{"AADSTS700016", "the application does not exist in this tenant; check azure.client_id and azure.tenant_id"},
		{"AADSTS90002", "there is no such tenant; check azure.tenant_id and azure.cloud"},
		{"AADSTS700027", "the certificate is not registered with the application, or has expired; check azure.client_certificate"},
		{"AADSTS70021", "no federated credential matches this workload; check issuer and subject of the application's federated credential"},
		{"AADSTS500011", "the API is not known in this tenant; check azure.cloud and the endpoint"},
	} {
		if strings.Contains(text, known.code) {
			return fmt.Errorf("sign in: %s (%s)", known.check, known.code)
		}
	}
	line, rest, _ := strings.Cut(text, "\n")
	if strings.HasSuffix(line, ":") { // the next one has the cause
		rest, _, _ = strings.Cut(strings.TrimSpace(rest), "\n")
		line += " " + rest
	}
	if r := failed.RawResponse; r != nil {
		return fmt.Errorf("sign in: %s answered %s: %s", r.Request.URL.Host, r.Status, line)
	}
	return fmt.Errorf("sign in: %s", line)
}
