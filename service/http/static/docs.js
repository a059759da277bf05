// Starts Swagger UI on our own schema; nothing is loaded from, or sent to, another host.
//
// The page fills every option it knows a default or a type for, and sends what it filled. Here an
// option may be given once, in the form or in the query, and an optional number is not 0: so the
// page's copy of the schema names no default for a query option, and an empty one for a form field
// that has none.
function leaveOptionsEmpty(schema) {
  const operations = Object.values(schema.paths).flatMap((path) => Object.values(path));
  for (const { parameters = [], requestBody } of operations) {
    for (const { schema: option } of parameters) delete option.default;
    const form = requestBody?.content["multipart/form-data"]?.schema;
    for (const [name, field] of Object.entries(form?.properties ?? {})) {
      if (!form.required.includes(name) && field.default === undefined) field.default = "";
    }
  }
  return schema;
}

window.addEventListener("load", async () => {
  const answer = await fetch("openapi.json");
  window.SwaggerUIBundle({
    spec: leaveOptionsEmpty(await answer.json()),
    dom_id: "#docs",
    deepLinking: true,
    validatorUrl: null,
    presets: [window.SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
});
