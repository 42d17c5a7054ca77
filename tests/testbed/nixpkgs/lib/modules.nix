# SPDX-License-Identifier: GPL-3.0-or-later
# A module system with the parts of NixOS's that fleets lean on: imports, options with types,
# mkIf, mkMerge, mkDefault, mkForce, mkBefore, mkAfter, submodules, _module.args.
{ lib }:
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    concatStringsSep
    filter
    foldl'
    functionArgs
    head
    isAttrs
    isFunction
    isPath
    isString
    map
    mapAttrs
    zipAttrsWith
    ;
  isType = type: value: isAttrs value && (value._type or null) == type;
  isOption = isType "option";
  showLoc = concatStringsSep ".";

  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkOrder = order: content: {
    _type = "order";
    inherit order content;
  };
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };

  # { a = 1; } under mkIf becomes { a = mkIf … 1; }: the names never depend on a condition, which may need config.
  pushDown =
    value:
    if isType "merge" value then
      concatMap pushDown value.contents
    else if isType "if" value then
      map (mapAttrs (_: mkIf value.condition)) (pushDown value.content)
    else if isType "override" value then
      map (mapAttrs (_: mkOverride value.priority)) (pushDown value.content)
    else if isType "order" value then
      map (mapAttrs (_: mkOrder value.order)) (pushDown value.content)
    else
      [ value ];

  # A definition's values with their priority and order, conditions resolved.
  discharge =
    def:
    let
      inherit (def) value;
      inner = content: discharge (def // { value = content; });
    in
    if isType "merge" value then
      concatMap inner value.contents
    else if isType "if" value then
      if value.condition then inner value.content else [ ]
    else if isType "override" value then
      map (d: d // { inherit (value) priority; }) (inner value.content)
    else if isType "order" value then
      map (d: d // { inherit (value) order; }) (inner value.content)
    else
      [
        (
          {
            priority = 100;
            order = 1000;
          }
          // def
        )
      ];

  winners =
    defs:
    let
      found = concatMap discharge defs;
      best = foldl' (acc: d: if d.priority < acc then d.priority else acc) 9999 found;
    in
    builtins.sort (a: b: a.order < b.order) (filter (d: d.priority == best) found);

  mergeWinners =
    loc: type: defs:
    let
      wrong = filter (d: !(type.check d.value)) defs;
    in
    if wrong == [ ] then
      type.merge loc defs
    else
      throw "A definition for option `${showLoc loc}' is not of type `${type.name}'. Definition in: ${(head wrong).file}";

  mergeOption =
    loc: option: defs:
    let
      default = lib.optional (option ? default) {
        file = "the option's default";
        value = mkOverride 1500 option.default;
      };
      found = winners (default ++ defs);
      value =
        if found == [ ] then
          throw "The option `${showLoc loc}' was accessed but has no value defined. Try setting the option."
        else
          mergeWinners loc option.type found;
    in
    (option.apply or lib.id) value;

  mergeTree =
    loc: declarations: definitions:
    let
      pushed = concatMap (d: map (value: d // { inherit value; }) (pushDown d.value)) definitions;
      spread = field: d: mapAttrs (_: value: d // { ${field} = value; }) d.${field};
      attrsOnly =
        d:
        if isAttrs d.value then
          d
        else
          throw "The option path `${showLoc loc}' is not an attribute set in ${d.file}.";
      declared = zipAttrsWith (_: lib.id) (map (spread "options") declarations);
      defined = zipAttrsWith (_: lib.id) (map (d: spread "value" (attrsOnly d)) pushed);
      entries = mapAttrs (
        name: decls:
        let
          options = filter (d: isOption d.options) decls;
          here = loc ++ [ name ];
          defs = defined.${name} or [ ];
        in
        if options != [ ] then
          {
            config = mergeOption here (head options).options defs;
            unmatched = [ ];
          }
        else
          mergeTree here decls defs
      ) declared;
      unknown = filter (name: !(declared ? ${name})) (attrNames defined);
    in
    {
      config = mapAttrs (_: entry: entry.config) entries;
      unmatched =
        map (name: {
          loc = loc ++ [ name ];
          inherit (head defined.${name}) file;
        }) unknown
        ++ concatLists (lib.mapAttrsToList (_: entry: entry.unmatched) entries);
    };

  collect =
    call: file: module:
    let
      isFile = isPath module || isString module;
      source = if isFile then import module else module;
      value = if isFunction source then call source else source;
      here = value._file or (if isFile then toString module else file);
      explicit = value ? config || value ? options;
      plain = removeAttrs value [
        "_class"
        "_file"
        "disabledModules"
        "imports"
        "key"
        "meta"
      ];
    in
    [
      {
        key = if isFile then builtins.unsafeDiscardStringContext (toString module) else null;
        file = here;
        options = value.options or { };
        value = if explicit then value.config or { } else plain;
      }
    ]
    ++ concatMap (collect call here) (value.imports or [ ]);

  # A file that is imported twice counts once.
  dedupe =
    entries:
    (foldl'
      (
        acc: entry:
        if entry.key == null then
          acc // { list = acc.list ++ [ entry ]; }
        else if acc.seen ? ${entry.key} then
          acc
        else
          {
            list = acc.list ++ [ entry ];
            seen = acc.seen // {
              ${entry.key} = true;
            };
          }
      )
      {
        list = [ ];
        seen = { };
      }
      entries
    ).list;

  internals = {
    _file = "lib/modules.nix";
    options._module = {
      args = mkOption {
        type = {
          name = "attribute set";
          check = isAttrs;
          merge = _: foldl' (acc: d: acc // d.value) { };
        };
        default = { };
      };
    };
  };

  mkOption = args: { _type = "option"; } // args;

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      arguments = specialArgs // {
        inherit lib config;
      };
      call =
        f:
        f (
          arguments
          // mapAttrs (name: _: arguments.${name} or tree.config._module.args.${name}) (
            lib.filterAttrs (name: hasDefault: arguments ? ${name} || !hasDefault) (functionArgs f)
          )
        );
      entries = dedupe (concatMap (collect call "an inline module") ([ internals ] ++ modules));
      tree = mergeTree prefix entries entries;
      inherit (tree) config;
      complain =
        u:
        throw "The option `${showLoc u.loc}' does not exist. Definition in: ${u.file}";
    in
    {
      config =
        if tree.unmatched == [ ] then removeAttrs config [ "_module" ] else complain (head tree.unmatched);
      inherit (config) _module;
      inherit specialArgs;
      extendModules =
        args:
        evalModules {
          inherit prefix;
          modules = modules ++ (args.modules or [ ]);
          specialArgs = specialArgs // (args.specialArgs or { });
        };
    };
in
{
  inherit
    evalModules
    mergeWinners
    mkIf
    mkMerge
    mkOption
    mkOrder
    mkOverride
    pushDown
    showLoc
    winners
    ;
  mkAfter = mkOrder 1500;
  mkBefore = mkOrder 500;
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkOptionDefault = mkOverride 1500;
  mkVMOverride = mkOverride 10;
}
